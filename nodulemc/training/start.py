"""Starting a run from a seed that has been trained before."""

from pathlib import Path

import torch
from torch import Tensor

from nodulemc.errors import EnsembleError
from nodulemc.manifest import read_manifest
from nodulemc.models.architecture import Architecture
from nodulemc.weights import read_weights


def seed_tensors(folder: str | Path, seed: int, architecture: Architecture) -> dict[str, Tensor]:
    """All tensors, fp32, of an ensemble's seed of this number, or of its only one, its decoder's too.

    Raises:
        EnsembleError: the folder is no ensemble, or lacks the seed, its decoder or the architecture.
    """
    manifest = read_manifest(folder)
    members = manifest.members
    # Seeds with one start, as with Kinetics-400 weights, still differ by their draws and augmentation.
    member = members[0] if len(members) == 1 else next((member for member in members if member.seed == seed), None)
    if member is None:
        known = ", ".join(str(member.seed) for member in members)
        raise EnsembleError(f"no seed {seed} to start from", folder, f"train with --seeds from {known}")
    if member.architecture != architecture or not member.upscales:
        raise EnsembleError(
            f"seed {member.seed} is {member.architecture}, the recipe {architecture}",
            folder,
            "give the recipe's model section the ensemble's values; decoders are kept by `nodulemc train --decoder`",
        )
    tensors = read_weights(manifest.folder, member, masks=True)
    return {name: torch.from_numpy(value.copy()).float() for name, value in tensors.items()}
