"""Exact simplifications of a trained network for inference."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nodulemc.models.layers import ConvUnit
from nodulemc.models.multitask import MultiTaskI3d

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def fold_batch_norm(model: Network) -> Network:
    """Fold every BatchNorm (in eval mode) into the convolution before it, in place; returns the model."""
    for module in model.modules():
        for convolution, norm in _pairs(module):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused)
            setattr(module, norm, nn.Identity())
    return model


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's convolutions and the BatchNorm that follows each: ours and pytorchvideo's."""
    if isinstance(module, ConvUnit):
        return [("conv3d", "batch3d")]
    children = dict(module.named_children())
    named = [(name, name.replace("conv", "norm", 1)) for name in children if "conv" in name]
    return [(conv, norm) for conv, norm in named if isinstance(children.get(norm), nn.BatchNorm3d)]


@torch.no_grad()
def fold_input_channels(model: MultiTaskI3d) -> MultiTaskI3d:
    """Sum the stem's weights over its input channels, in place: the same result, as the channels are copies."""
    stem = model.backbone.stem
    stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True), requires_grad=False)
    stem.in_channels = 1
    return model
