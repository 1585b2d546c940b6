"""Ensembles of full-size untrained networks, always the same for the same seeds."""

from collections.abc import Sequence
from pathlib import Path

import torch

from nodulemc.ensemble_writer import SeedWeights, write_ensemble
from nodulemc.manifest import Manifest
from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model
from nodulemc.probes import probe_patches


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


def make_untrained_ensemble(
    folder: Path,
    seeds: Sequence[int] = (1,),
    *,
    architecture: Architecture | None = None,
    weights: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float16,
    probes: int = 1,
) -> Manifest:
    """Write an untrained ensemble, its precision measured on few probes, and return its manifest."""
    architecture = architecture or Architecture("inception_i3d")
    weights = weights or [1.0] * len(seeds)
    members = [
        SeedWeights(f"seed_{seed}", architecture, untrained_weights(architecture, seed), weight, seed)
        for seed, weight in zip(seeds, weights, strict=True)
    ]
    return write_ensemble(
        folder, members, trained_on=None, licence="Apache-2.0", dtype=dtype, probes=probe_patches()[-probes:]
    )
