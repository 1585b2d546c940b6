"""Exact simplifications of a trained network for inference."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nodulemc.models.layers import ConvUnit
from nodulemc.models.multitask import MultiTaskI3d


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold every BatchNorm (in eval mode) into the convolution before it, in place; returns the model."""
    for unit in [module for module in model.modules() if isinstance(module, ConvUnit)]:
        unit.conv3d = fuse_conv_bn_eval(unit.conv3d, unit.batch3d)
        unit.batch3d = nn.Identity()
    return model


@torch.no_grad()
def fold_input_channels(model: MultiTaskI3d) -> MultiTaskI3d:
    """Sum the stem's weights over its input channels, in place: the same result, as the channels are copies."""
    stem = model.backbone.stem
    stem.weight = nn.Parameter(stem.weight.sum(dim=1, keepdim=True), requires_grad=False)
    stem.in_channels = 1
    return model
