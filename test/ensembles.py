"""Ensembles of full-size untrained networks, always the same for the same seeds."""

import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from nodulemc.ensemble.manifest import EnsembleManifest, read_manifest
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model


def untrained_weights(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    """He-scaled weights of random sign, and an output layer that spreads probabilities over 0…1.

    Signs alone compress to a bit per weight, which keeps a stand-in ensemble small in version control.
    """
    model = create_model(architecture, with_decoder=architecture.decoder_widths is not None)
    generator = torch.Generator().manual_seed(seed)
    tensors = model.state_dict()
    for name, value in tensors.items():
        if value.ndim >= 2:
            scale = (2 / value[0].numel()) ** 0.5
            signs = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
            tensors[name] = signs * scale
        elif name.startswith("classifier_head"):
            tensors[name] = torch.zeros_like(value)
    return tensors


def shrunk_probe(upscales: bool = True) -> np.ndarray:
    """Every fourth voxel of a probe, (1, 16, 16, 16): a 64th of the work; what is not upscaled keeps every other one
    along y and x.
    """
    step = 4 if upscales else 2
    return probe_patches()[-1:, ::4, ::step, ::step]


def make_untrained_ensemble(
    folder: Path,
    seeds: Sequence[int] = (1,),
    *,
    architecture: Architecture | None = None,
    weights: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float16,
    probes: int = 0,
    upscales: bool = True,
) -> EnsembleManifest:
    """Write an untrained ensemble and return its manifest.

    Its precision is measured on so many probes, or, as most tests do not look at it, on one that is shrunk. Without
    upscaling patches are a quarter of the work.
    """
    architecture = architecture or Architecture("inception_i3d")
    made = _made(tuple(seeds), architecture, tuple(weights or [1.0] * len(seeds)), dtype, probes, upscales)
    shutil.copytree(_inner(made), folder, dirs_exist_ok=True)
    return read_manifest(folder)


def _inner(folder: tempfile.TemporaryDirectory) -> Path:
    """A folder with the usual permissions; a temporary one is closed to other users, as a container's are."""
    return Path(folder.name) / "ensemble"


@cache
def _made(
    seeds: tuple[int, ...],
    architecture: Architecture,
    weights: tuple[float, ...],
    dtype: torch.dtype,
    probes: int,
    upscales: bool,
) -> tempfile.TemporaryDirectory:
    """An ensemble that is made once and copied by all tests that ask for it; gone with the process."""
    folder = tempfile.TemporaryDirectory()
    members = [
        MemberWeights(f"seed_{seed}", architecture, untrained_weights(architecture, seed), weight, seed, upscales)
        for seed, weight in zip(seeds, weights, strict=True)
    ]
    patches = probe_patches()[-probes:] if probes else shrunk_probe(upscales)
    write_ensemble(_inner(folder), members, trained_on=None, licence="Apache-2.0", dtype=dtype, probes=patches)
    return folder
