"""Starting a run from members of a trained ensemble."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest
from nodulemc.ensemble.trained_cases import TrainedCase, read_trained_cases
from nodulemc.ensemble.weights import read_weights
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.training.config import ModelConfig


def start_tensors(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Return all tensors that a seed starts from, fp32, including the decoder's.

    They are those of the member with this seed, those of the only member, or the mean of all members. They lack an
    attribute head if the recipe wants one and the ensemble has none.

    Source of the mean: Wortsman et al., Model soups, ICML 2022, for members that were fine-tuned from one start.

    Raises:
        EnsembleError: the folder is no ensemble, or lacks the seed, its decoder or the recipe's architecture.
    """
    manifest = _start_manifest(config)
    starts = _starts(manifest, config, seed)
    for member in starts:
        _require_architecture(manifest, member, config.architecture)
    per_member = [read_weights(manifest.location, member, masks=True) for member in starts]
    return {
        name: torch.stack([torch.from_numpy(tensors[name].copy()).double() for tensors in per_member])
        .mean(dim=0)
        .float()
        for name in per_member[0]
    }


def lacks_attributes(config: ModelConfig, seed: int) -> bool:
    """Return whether the result of ``start_tensors`` has no attribute head.

    Raises:
        EnsembleError: the folder is no ensemble, or lacks the seed.
    """
    return not _starts(_start_manifest(config), config, seed)[0].architecture.attributes


def start_cases(config: ModelConfig, seed: int) -> frozenset[TrainedCase]:
    """Return the training cases of a seed's start, as far as its folder states them; none without a start.

    Raises:
        EnsembleError: the folder is no ensemble, lacks the seed, or its list of training cases is damaged.
    """
    if config.start_from is None:
        return frozenset()
    manifest = _start_manifest(config)
    starts, cases = _starts(manifest, config, seed), read_trained_cases(manifest)
    return frozenset().union(*(cases.of_member(Path(member.file).stem) for member in starts)) if cases else frozenset()


def _start_manifest(config: ModelConfig) -> EnsembleManifest:
    if config.start_from is None:
        raise ValueError("the recipe names no ensemble to start from")
    return read_manifest(config.start_from)


def _starts(manifest: EnsembleManifest, config: ModelConfig, seed: int) -> tuple[Member, ...]:
    """Return the members to start from: that of this seed, or the only one; all of them if their mean is wanted.

    Raises:
        EnsembleError: the ensemble lacks the seed.
    """
    members = manifest.members
    # Seeds with the same start, as with Kinetics-400 weights, still differ by their draws and augmentation.
    if config.start_averaged or len(members) == 1:
        return members
    own = tuple(member for member in members if member.seed == seed)[:1]
    if not own:
        known = ", ".join(str(member.seed) for member in members)
        raise EnsembleError(f"no seed {seed} to start from", manifest.folder, f"train with --seeds from {known}")
    return own


def _require_architecture(manifest: EnsembleManifest, member: Member, wanted: Architecture) -> None:
    """Raise EnsembleError if a member is not of the recipe's architecture, apart from attributes that it lacks."""
    known = replace(wanted, attributes=member.architecture.attributes and wanted.attributes)
    if member.architecture != known or not member.upscales:
        raise EnsembleError(
            f"seed {member.seed} is {member.architecture}, the recipe {wanted}",
            manifest.folder,
            "give the recipe's model section the ensemble's values; `nodulemc train --keep-decoder` keeps decoders",
        )
