"""Exact simplifications of a trained network for inference."""

from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nodulemc.models.layers import ConvBnRelu
from nodulemc.models.multitask import MultiTaskI3d
from nodulemc.models.torch_backbone import TorchBackbone

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def fold_batch_norm(model: Network) -> Network:
    """Fold every BatchNorm (in eval mode) into the convolution before it, in place, and return the model."""
    for module in [*model.modules()]:
        for conv, norm in _pairs(module):
            layers = cast("tuple[nn.Conv3d, nn.BatchNorm3d]", [*map(module.get_submodule, (conv, norm))])
            module.set_submodule(conv, fuse_conv_bn_eval(*layers))
            module.set_submodule(norm, nn.Identity())
    return model


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return the paths of a module's convolutions, each with the path of the BatchNorm that follows."""
    if isinstance(module, ConvBnRelu):
        return [("conv3d", "batch3d")]
    return module.pairs if isinstance(module, TorchBackbone) else []


@torch.no_grad()
def fold_input_channels(model: MultiTaskI3d) -> MultiTaskI3d:
    """Sum the stem's weights over its input channels, in place. The result is the same, as the channels are copies."""
    stem = model.backbone.stem
    stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True), requires_grad=False)
    stem.in_channels = 1
    return model
