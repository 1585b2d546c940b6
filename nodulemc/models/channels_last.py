"""Operations that PyTorch computes slowly on 3-D tensors that are channels last, built from fast 2-D ones.

A tensor (N, C, D, H, W) that is channels last lies in memory as (N, D, H, W, C). Without a copy it is also N·D planes
(C, H, W), and N pictures (C, D, H·W). Both are channels last, and PyTorch has special CUDA kernels for them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.models.backbone import Triple, Window

# Axes are merged in their order in memory. This keeps their steps right if an axis has length one, as for one patch.
_AS_IT_LIES, _BACK = (0, 2, 3, 4, 1), (0, 4, 1, 2, 3)


def max_pool3d(x: Tensor, window: Window) -> Tensor:
    """Return the maximum of each window of (N, C, D, H, W), computed faster on a GPU.

    The values are PyTorch's, and so are the gradients, except for ties. Ceil mode has the effect of one more voxel of
    padding at the far side, without a padded copy.
    """
    pool = max_pool if fits(x) else F.max_pool3d
    return pool(x, window.kernel, window.stride, window.near, ceil_mode=window.near != window.far)


def move_channels_last(network: nn.Module, device: str | torch.device, dtype: torch.dtype | None = None) -> None:
    """Move a network in place, with its convolutions' weights in channels-last layout."""
    network.to(device, dtype, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # PyTorch's types lack it


def fits(x: Tensor) -> bool:
    """Return whether a tensor (N, C, D, H, W) is faster in 2-D."""
    return x.is_cuda and x.is_contiguous(memory_format=torch.channels_last_3d)


def max_pool(x: Tensor, kernel: Triple, stride: Triple, padding: Triple, *, ceil_mode: bool = False) -> Tensor:
    """Do ``F.max_pool3d`` in two steps, in plane and along D. A maximum allows that.

    Args:
        x: (N, C, D, H, W).
        kernel: The size of a box along D, H and W.
        stride: The distance from box to box, along the same axes.
        padding: The padding by −infinity, at both sides of the same axes.
        ceil_mode: Let the last box of an axis reach beyond it.
    """
    x = _in_planes(x, lambda p: F.max_pool2d(p, kernel[1:], stride[1:], padding[1:], ceil_mode=ceil_mode))
    if kernel[0] == stride[0] == 1:
        return x
    depth = (kernel[0], 1), (stride[0], 1), (padding[0], 0)
    return _along_depth(x, lambda p: F.max_pool2d(p, *depth, ceil_mode=ceil_mode))


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (N, C, D, H, W) trilinearly to another (D, H, W), with ``align_corners`` False."""
    if not fits(x):
        return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)
    depth, height, width = size
    if x.shape[2] != depth:
        # Along D first, while there are fewer voxels.
        x = _along_depth(x, lambda p: _bilinear(p, (depth, p.shape[3])))
    return _in_planes(x, lambda p: _bilinear(p, (height, width)))


def concatenate(tensors: list[Tensor]) -> Tensor:
    """Join the channels of tensors (N, C, D, H, W) as rows of a matrix, which are copied fast."""
    if not all(map(fits, tensors)):
        return torch.cat(tensors, dim=1)
    voxels = [tensor.permute(_AS_IT_LIES).flatten(0, 3) for tensor in tensors]
    n, _, *sides = tensors[0].shape
    joined: Tensor = torch.cat(voxels, dim=1).unflatten(0, (n, *sides))
    return joined.permute(_BACK)


def _bilinear(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)


def _in_planes(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the tensor as (N·D, C, H, W)."""
    planes = x.permute(_AS_IT_LIES).flatten(0, 1).permute(0, 3, 1, 2)
    volumes: Tensor = run(planes).permute(0, 2, 3, 1).unflatten(0, (x.shape[0], x.shape[2]))
    return volumes.permute(_BACK)


def _along_depth(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the tensor as (N, C, D, H·W)."""
    pictures = x.permute(_AS_IT_LIES).flatten(2, 3).permute(0, 3, 1, 2)
    volumes: Tensor = run(pictures).permute(0, 2, 3, 1).unflatten(2, x.shape[3:])
    return volumes.permute(_BACK)
