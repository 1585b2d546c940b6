"""What the heads read of a backbone's feature maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nodulemc.models.backbone import ATTRIBUTE_MAP, CENTRE_MAPS, CENTRE_PARTS, centre_of

_VOXELS = (2, 3, 4)


def pooled_features(maps: Sequence[Tensor], pooling: str, patch_sides: float = 1) -> Tensor:
    """Return the features (N, F) that the malignancy head reads.

    Args:
        maps: The five feature maps, from fine to coarse.
        pooling: One of ``nodulemc.models.architecture.POOLINGS``.
        patch_sides: The share of a whole patch, along each axis, that the maps were made from.
    """
    if pooling == "centre":
        boxes = [_centre(maps[k], patch_sides, parts) for k in CENTRE_MAPS for parts in CENTRE_PARTS]
        return torch.cat([value for box in boxes for value in (box.mean(_VOXELS), box.amax(_VOXELS))], dim=1)
    coarsest = maps[-1]
    if pooling == "windows_2x2x2":
        coarsest = F.avg_pool3d(coarsest, 2, stride=1)
    return F.adaptive_avg_pool3d(coarsest, 1).flatten(1)


def all_features(maps: Sequence[Tensor], pooling: str, patch_sides: float = 1) -> Tensor:
    """Return the features (N, F) that the attribute head reads: those of the malignancy head come first.

    Where these have none of them, a fine map's maxima over the central 12.5 mm follow.
    """
    pooled = pooled_features(maps, pooling, patch_sides)
    if pooling == "centre":
        return pooled
    return torch.cat([pooled, _centre(maps[ATTRIBUTE_MAP], patch_sides, CENTRE_PARTS[0]).amax(_VOXELS)], dim=1)


def _centre(x: Tensor, patch_sides: float, parts: int) -> Tensor:
    depth, height, width = centre_of(x.shape[2:], patch_sides, parts)
    return x[:, :, depth, height, width]
