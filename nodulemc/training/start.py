"""Starting a run from a seed that has been trained before."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nodulemc.errors import EnsembleError
from nodulemc.manifest import Manifest, Member, read_manifest
from nodulemc.models.architecture import Architecture
from nodulemc.trained_cases import TrainedCase, read_trained_cases
from nodulemc.weights import read_weights


def seed_tensors(folder: str | Path, seed: int, architecture: Architecture) -> dict[str, Tensor]:
    """All tensors, fp32, of an ensemble's seed of this number, or of its only one, its decoder's too.

    An attribute head is not among them where the architecture has one and the seed has none.

    Raises:
        EnsembleError: the folder is no ensemble, or lacks the seed, its decoder or the architecture.
    """
    manifest = read_manifest(folder)
    member = _start(manifest, seed)
    known = replace(architecture, attributes=member.architecture.attributes and architecture.attributes)
    if member.architecture != known or not member.upscales:
        raise EnsembleError(
            f"seed {member.seed} is {member.architecture}, the recipe {architecture}",
            folder,
            "give the recipe's model section the ensemble's values; decoders are kept by `nodulemc train --decoder`",
        )
    tensors = read_weights(manifest.folder, member, masks=True)
    return {name: torch.from_numpy(value.copy()).float() for name, value in tensors.items()}


def lacks_attributes(folder: str | Path, seed: int) -> bool:
    """Whether the seed that ``seed_tensors`` finds has no attribute head.

    Raises:
        EnsembleError: the folder is no ensemble, or lacks the seed.
    """
    return not _start(read_manifest(folder), seed).architecture.attributes


def start_cases(folder: str | Path | None, seed: int) -> frozenset[TrainedCase]:
    """What an ensemble's seed, the one of ``seed_tensors``, was trained on, as far as its folder says.

    Nothing where there is no ensemble to start from.

    Raises:
        EnsembleError: the folder is no ensemble, lacks the seed, or its list of training cases is damaged.
    """
    if folder is None:
        return frozenset()
    manifest = read_manifest(folder)
    cases = read_trained_cases(manifest)
    return cases.of_member(Path(_start(manifest, seed).file).stem) if cases else frozenset()


def _start(manifest: Manifest, seed: int) -> Member:
    """The member to start from: that of this seed, or the only one.

    Raises:
        EnsembleError: the ensemble lacks it.
    """
    members = manifest.members
    # Seeds with one start, as with Kinetics-400 weights, still differ by their draws and augmentation.
    member = members[0] if len(members) == 1 else next((member for member in members if member.seed == seed), None)
    if member is None:
        known = ", ".join(str(member.seed) for member in members)
        raise EnsembleError(f"no seed {seed} to start from", manifest.folder, f"train with --seeds from {known}")
    return member
