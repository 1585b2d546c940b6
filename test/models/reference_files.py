"""Checkpoint files with the public code's names and shapes, and activations that stay of order one."""

from pathlib import Path

import torch
from torch import Tensor

from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model

PUBLISHED = Architecture("inception_i3d", decoder_widths=(832, 480, 192, 64, 64))


def reference_state(seed: int, *, decoder: bool = False) -> dict[str, Tensor]:
    """Random tensors under MClab's names; BatchNorm statistics differ from their defaults."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape, low, high):
        return torch.rand(shape, generator=generator) * (high - low) + low

    with torch.device("meta"):
        model = create_model(PUBLISHED, with_decoder=decoder)
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            state[name] = uniform(value.shape, 0.5, 1.5)
        elif name.endswith("batch3d.weight"):
            state[name] = uniform(value.shape, 0.8, 1.2)
        elif name.endswith(("running_mean", "bias")):
            state[name] = uniform(value.shape, -0.1, 0.1)
        elif value.is_floating_point():
            bound = (6 / value[0].numel()) ** 0.5  # He-uniform
            state[name] = uniform(value.shape, -bound, bound)
        else:
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    state["classifier_head.2.weight"] *= 3  # logits that spread over several units
    return state


def save_reference(path: Path, state: dict[str, Tensor], form: str = "mclab") -> Path:
    """Write a state as MClab's training does ("mclab", or "single_task") or as the LUNA25 baseline's ("baseline")."""
    fc = {"fc.weight": torch.ones(1, 1024), "fc.bias": torch.ones(1)}
    kinetics = {
        "conv3d_0c_1x1.conv3d.weight": torch.ones(400, 1024, 1, 1, 1),
        "conv3d_0c_1x1.conv3d.bias": torch.ones(400),
    }
    if form == "mclab":
        content = state | {f"backbone.{name}": value for name, value in (fc | kinetics).items()}
    else:
        content = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
        weight, bias = (state[f"classifier_head.2.{part}"] for part in ("weight", "bias"))
        if form == "single_task":
            content |= kinetics | {"fc.weight": weight, "fc.bias": bias}
        else:
            classifier = {"weight": weight[:, :, None, None, None], "bias": bias}
            content |= {f"conv3d_0c_1x1.conv3d.{part}": value for part, value in classifier.items()}
    torch.save(content, path)
    return path
