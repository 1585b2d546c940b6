"""Right: each precision on the device against fp32 on the CPU."""

from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple

import numpy as np
from measure import swapped_gaps

from gpu_parts.nodules import collect, read_patches
from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting
from nodulemc.ensemble.backends.torch_backend import TorchMembers
from nodulemc.ensemble.backends.ways import Way
from nodulemc.ensemble.precision import choose_precision
from nodulemc.hardware import available_cores
from nodulemc.models.upscaled_stem import PatchNetwork

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MASKS = 4
_SMALL_BATCHES = (1, 2)
_NODULES = 24  # for probes, phantom and real nodules each
_PATHS = (("fp32", "fp32", False), ("fp32 with TF32", "fp32", True), ("bf16", "bf16", False), ("fp16", "fp16", False))


def rows(setting: Setting) -> Iterator[Row]:
    """Measure differences of probabilities and masks by precision, over batch sizes, then the choice of ``auto``."""
    patches, words = _patches(setting)
    yield Row("nodules", len(patches), "", words)
    decoders = any(member.segments for member in setting.manifest.members)
    networks = setting.networks(masks=decoders)
    exact = TorchMembers(deepcopy(networks), "cpu", "fp32")
    expected = exact.member_probabilities(patches)
    few = patches[-1:] if setting.small else patches[-_MASKS:]
    masks = exact.mask_probabilities(few) if decoders else None
    measured: dict[str, float] = {}
    truth = _Truth(patches, expected, few, masks)
    measured: dict[str, float] = {}
    for name, precision, tf32 in _PATHS:
        yield from attempt(name, _compare(name, setting, truth, (networks, precision, Way(tf32=tf32)), measured))
    yield from attempt("auto", _chosen(setting, measured))


class _Truth(NamedTuple):
    """Patches with their probabilities (N, members), and a few patches with their masks, None without decoders."""

    patches: np.ndarray
    expected: np.ndarray
    few: np.ndarray
    masks: np.ndarray | None


def _patches(setting: Setting) -> tuple[np.ndarray, str]:
    if setting.patches is not None:
        return read_patches(setting.patches)
    try:
        return collect(setting.cubes, 1 if setting.small else _NODULES, min(4, available_cores()))
    except ModuleNotFoundError as error:
        from nodulemc.ensemble.synthetic_patches import probe_patches

        return probe_patches(), f"8 probes alone: {error.name} is not installed and no --patches given"


def _by_batch(setting: Setting, seeds: TorchMembers, patches: np.ndarray) -> dict[int, np.ndarray]:
    """Return the probabilities (N, members) of each batch size."""
    found = {}
    for batch in _SMALL_BATCHES if setting.small else _BATCHES:
        seeds.batch_size = batch
        found[batch] = seeds.member_probabilities(patches)
        setting.require(seeds)
    return found


def _compare(
    name: str,
    setting: Setting,
    truth: _Truth,
    how: tuple[list[PatchNetwork], str, Way],
    measured: dict[str, float],
) -> Iterator[Row]:
    networks, precision, way = how
    seeds = setting.seeds(networks, precision, way=way)
    found = _by_batch(setting, seeds, truth.patches)
    tolerance = setting.manifest.tolerance
    per_batch = {batch: _difference(probabilities, truth.expected) for batch, probabilities in found.items()}
    worst = max(per_batch, key=per_batch.get)
    measured[name] = per_batch[worst]
    beside = f"tolerance {tolerance:g}; worst of batches {', '.join(map(str, found))}: {worst}"
    yield Row(f"{name}: a member's largest difference", measured[name], "", beside, measured[name] <= tolerance)
    before, after = setting.vote(truth.expected), setting.vote(found[worst])
    yield Row(f"{name}: the vote's", _difference(after, before), "", "in that batch size")
    gaps = swapped_gaps(before, after)
    pairs = len(before) * (len(before) - 1) // 2
    yield Row(
        f"{name}: pairs that change places", len(gaps), f"of {pairs}", f"at most {max(gaps, default=0.0):.1e} apart"
    )
    spread = float(np.ptp(np.stack(list(found.values())), axis=0).max())
    yield Row(f"{name}: between batch sizes", spread, "", "largest difference of a member")
    if truth.masks is not None:
        masks = seeds.mask_probabilities(truth.few)
        crossing = f"{100 * ((masks > 0.5) != (truth.masks > 0.5)).mean():.3f} % of the voxels cross one half"
        yield Row(f"{name}: a mask voxel's largest difference", _difference(masks, truth.masks), "", crossing)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def _chosen(setting: Setting, measured: dict[str, float]) -> Iterator[Row]:
    chosen = choose_precision("auto", setting.device, setting.manifest)
    stated = f"the ensemble states {setting.manifest.deviations}; here {chosen} has {measured[chosen]:.5f}"
    yield Row("auto chooses", chosen, "", stated, measured[chosen] <= setting.manifest.tolerance)
