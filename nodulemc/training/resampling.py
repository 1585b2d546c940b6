"""Training patches from stored blocks: one interpolation, on the training device, for a whole batch at once.

``sampling_affine`` joins spacing, direction, rotation, shift, flips and transposition to one affine map from the
patch's voxels to the block's; ``resample`` applies it. The grid is that of ``nodulemc.patch``. Without augmentation the
result equals that of ``extract_patch``.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nodulemc.arrays import Array
from nodulemc.data.block_store import NoduleBlock
from nodulemc.patch import AIR_HU, HU_WINDOW, SIZE, VOXEL_MM
from nodulemc.training.augmentation import Augmentation

_REVERSE = np.eye(3)[::-1]  # x, y, z <-> z, y, x


def sampling_affine(block: NoduleBlock, augmentation: Augmentation) -> Array:
    """Return the affine map from a patch's voxels to the places in the block where they are sampled.

    Returns:
        float64 (3, 4). It maps a patch voxel's (z, y, x, 1), relative to the patch's centre, to the block's continuous
            index z, y, x.
    """
    to_index = _REVERSE @ np.linalg.inv(block.matrix) @ _REVERSE
    centre = _REVERSE @ (block.point - block.origin) + augmentation.shift_mm
    return np.column_stack([to_index @ augmentation.matrix() * VOXEL_MM, to_index @ centre])


def resample(
    voxels: Tensor, masks: Tensor, affines: Tensor, sizes: Tensor, scan_bounds: Tensor, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """Sample image and mask of each block on its patch grid.

    Both are interpolated trilinearly, the image as floating-point HU. Outside the scan there is air. Between a border
    voxel's centre and its outer face, the voxel's value holds.

    The mask is cut at one half. With thick slices nearest-neighbour sampling would give steps of whole slices. A soft
    mask would keep even a perfect prediction's Dice below 1.

    Args:
        voxels: HU, integer (N, D, H, W), each block padded at the far ends to the largest.
        masks: 0 or 1, integer, the same shape.
        affines: float64 (N, 3, 4), from ``sampling_affine``.
        sizes: (N, 3), the own size z, y, x of each block.
        scan_bounds: float64 (N, 2, 3), the scan's outer faces, low and high, as block indices z, y, x.
        size: The number of voxels to sample per axis around the patch's centre, an even number.

    Returns:
        The images, float32 (N, 1, size, size, size), with values 0…1, and the masks, float32 (N, size, size, size), 0
            or 1.
    """
    index = _sampled_indices(affines, size)
    low, high = scan_bounds[:, 0, :, None, None, None], scan_bounds[:, 1, :, None, None, None]
    inside = ((index >= low) & (index <= high)).all(dim=1)
    # Clip to the block, then scale to -1…1 over the padded size, x first, as grid_sample wants it. Rounding to fp32
    # comes last: voxel indices in fp32 would be off by up to 1e-5.
    index.clamp_min_(0)
    index = index.minimum((sizes - 1)[:, :, None, None, None].to(index.dtype))
    span = torch.tensor(voxels.shape[1:], device=index.device)[:, None, None, None] - 1
    grid = index.mul_(2 / span.clamp_min(1)).sub_(1).float().flip(1).permute(0, 2, 3, 4, 1)
    content = torch.stack([voxels.float(), masks.float()], dim=1)
    sampled = F.grid_sample(content, grid, mode="bilinear", padding_mode="border", align_corners=True)
    hu = torch.where(inside, sampled[:, 0], AIR_HU)
    low_hu, high_hu = HU_WINDOW
    images = ((hu - low_hu) / (high_hu - low_hu)).clamp_(0, 1)
    return images.unsqueeze(1), (inside & (sampled[:, 1] > 0.5)).float()


def _sampled_indices(affines: Tensor, size: int) -> Tensor:
    """Return the block index z, y, x of the patch's central voxels: float64 (N, 3, size, size, size)."""
    steps = torch.arange(size, dtype=affines.dtype, device=affines.device) - (size - 1) / 2
    z, y, x = (affines[:, :, axis, None] * steps for axis in range(3))  # (N, 3, size) each
    start = affines[:, :, 3, None, None, None]
    return start + z[:, :, :, None, None] + y[:, :, None, :, None] + x[:, :, None, None, :]
