"""The input of all parts: the device, the ensemble and its networks, and the nodules."""

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from measure import seconds
from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.ensemble.backends.torch_backend import TorchMembers, load_network
from nodulemc.ensemble.backends.ways import Way
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest, write_manifest
from nodulemc.ensemble.precision import choose_precision
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.errors import NoduleMCError
from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork

Result = TypeVar("Result")

_SHRINK = 4
_SMALL_MEMBERS = 2
UNTRAINED = Architecture("inception_i3d", decoder_widths=(64, 64, 48, 32, 16))


class ShrunkNetwork(PatchNetwork):
    """The same network on patches shrunk to 16³, a 64th of the work, for trying the benchmark itself on a CPU."""

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        """See ``PatchNetwork``."""
        logits, masks, *attributes = super().forward(_shrunk(patches))
        return logits, F.interpolate(masks[:, None], scale_factor=_SHRINK)[:, 0], *attributes

    def classify(self, patches: Tensor) -> Tensor:
        """See ``PatchNetwork``."""
        return super().classify(_shrunk(patches))


def _shrunk(patches: Tensor) -> Tensor:
    # It takes every fourth voxel, as not every CPU can average bf16 and fp16.
    return patches[:, :, ::_SHRINK, ::_SHRINK, ::_SHRINK]


@dataclass(frozen=True)
class Setting:
    """The input of a part.

    Attributes:
        device: "cuda" or "cpu".
        small: Whether only the benchmark itself is tried, on few and shrunk patches.
        resources: The ensemble's folder.
        patches: The file of nodules' patches (see ``gpu_parts.nodules``). None to draw and read them.
        cubes: The folder of real nodules.
    """

    device: str
    small: bool
    resources: Path
    patches: Path | None
    cubes: Path

    @property
    def manifest(self) -> EnsembleManifest:
        """The ensemble's manifest, with the members that are used."""
        manifest = read_manifest(self.resources)
        return replace(manifest, members=manifest.members[: _SMALL_MEMBERS if self.small else None])

    @property
    def half(self) -> str:
        """The shorter precision that is fast on the device. In a small run fp32, as not every CPU has another one."""
        exact = replace(self.manifest, max_deviation={"bf16": 0.0, "fp16": 0.0})
        return "fp32" if self.small else choose_precision("auto", self.device, exact)

    @property
    def compiler(self) -> str:
        """The compiler for torch.compile. A small run only traces, and does not need a C++ compiler."""
        return "eager" if self.small else "inductor"

    @property
    def repeats(self) -> int:
        """The number of repetitions of timed work."""
        return 1 if self.small else 5

    def networks(self, *, masks: bool = False) -> list[PatchNetwork]:
        """Return the members' networks, folded, in fp32 on the CPU. For masks they have their decoders, if any."""
        return [self._network(member, masks and member.segments) for member in self.manifest.members]

    def _network(self, member: Member, masks: bool) -> PatchNetwork:
        network = load_network(self.resources, member, masks=masks)
        return ShrunkNetwork(network.network, upscaled=member.upscales).eval() if self.small else network

    def seeds(self, networks: list[PatchNetwork], precision: str, *, way: Way | None = None) -> TorchMembers:
        """Return the networks on the device. The given networks are not changed.

        Raises:
            RuntimeError: they did not fit on it.
        """
        seeds = TorchMembers(deepcopy(networks), self.device, precision, way=way)
        self.require(seeds)
        return seeds

    def require(self, seeds: TorchMembers) -> None:
        """Raise RuntimeError if members are not on the device, so that no figure of the CPU is taken for a GPU's."""
        if seeds.device != self.device:
            raise RuntimeError(f"the members left the {self.device} for the {seeds.device}")

    def require_gpu(self) -> None:
        """Raise RuntimeError on a CPU."""
        if self.device != "cuda":
            raise RuntimeError("it needs a GPU")

    def alone(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of work that leaves traces in its process, run in its own. A small run leaves no traces."""
        return work(*arguments) if self.small else in_process(work, *arguments)

    def vote(self, per_member: np.ndarray) -> np.ndarray:
        """Return the ensemble's vote."""
        return Ensemble(self.manifest, None).vote(per_member)


def probes(count: int) -> np.ndarray:
    """Return this number of synthetic patches."""
    patches = probe_patches()
    return patches[np.arange(count) % len(patches)]


def timed(run: Callable[[], object], setting: Setting) -> tuple[float, float]:
    """Return the seconds by which the first run is longer than a later one, and those of a later one."""
    first = seconds(run, 1, setting.device)
    each = seconds(run, setting.repeats, setting.device)
    return max(0.0, first - each), each


def in_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """Return the result of some work in a fresh process.

    cuDNN keeps its choices and Accelerate its state as long as a process lives.

    Raises:
        BrokenProcessPool: the process died.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def find_ensemble(folder: Path, temporary: Path) -> tuple[Path, str]:
    """Return the ensemble's available members, or a new ensemble, and a description of them.

    A tree may have to be small to travel. So the folder may lack weight files, or be missing.
    """
    try:
        manifest = read_manifest(folder)
    except NoduleMCError:
        return _write_untrained(temporary)
    here = tuple(member for member in manifest.members if (folder / member.file).is_file())
    if not here:
        return _write_untrained(temporary)
    words = f"{len(here)} of {len(manifest.members)} members of {folder.resolve().name}, {manifest.origin}"
    if len(here) == len(manifest.members):
        return folder, words
    for member in here:
        shutil.copyfile(folder / member.file, temporary / member.file)
    write_manifest(temporary, replace(manifest, members=here))
    return temporary, words


def _write_untrained(folder: Path) -> tuple[Path, str]:
    torch.manual_seed(0)
    network = create_model(UNTRAINED, with_decoder=True)
    for parameter in network.parameters():
        if parameter.ndim >= 2:
            nn.init.kaiming_normal_(parameter)
    seeds = [MemberWeights("untrained", UNTRAINED, network.state_dict())]
    write_ensemble(folder, seeds, trained_on=None, licence=None, dtype=torch.float16, probes=probe_patches()[-1:])
    return folder, "1 member, untrained: differences between precisions are not those of trained weights"
