"""From a nodule's world point to the network's input: the one place that defines the sampling grid.

A patch has 64³ voxels over 50 mm. Its axes (z, y, x) are aligned with the world's, and the nodule's point is at
continuous index 31.5 on each axis. Inference, block preparation and augmentation all use this grid.
Source: the LUNA25 baseline (64 voxels over 50 mm, HU −1000…400). The grid's numbers need no SimpleITK.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ct.volume import Volume

SIZE = 64
EXTENT_MM = 50.0
VOXEL_MM = EXTENT_MM / SIZE
CENTRE_INDEX = (SIZE - 1) / 2
AIR_HU = -1000.0
HU_WINDOW = (-1000.0, 400.0)
UPSCALED = (64, 128, 128)


def patch_origin(point: Sequence[float]) -> list[float]:
    """Return the world position x, y, z in mm (LPS) of the centre of the patch's first voxel."""
    return [float(c) - CENTRE_INDEX * VOXEL_MM for c in point]


def scale_hu(hu: Array) -> Array:
    """Map HU −1000…400 to 0…1, clipped; float32 of any shape in and out."""
    low, high = map(np.float32, HU_WINDOW)
    scaled: Array = np.clip((hu - low) / (high - low), 0, 1)
    return scaled


def extract_patch(volume: Volume, point: Sequence[float]) -> Array:
    """Sample the patch around a nodule's point from a CT of any spacing and direction.

    Interpolation is trilinear on floating-point HU. Beyond the outer faces of the scan's border voxels there is air
    (−1000 HU). Only the voxels that the patch needs are converted to floating point.

    Args:
        volume: The CT.
        point: The nodule's point x, y, z in mm (LPS).

    Returns:
        float32 array (64, 64, 64), axes z, y, x, values 0…1.

    Raises:
        ImageError: a voxel under the patch is NaN or infinite.
    """
    import SimpleITK as sitk

    origin = patch_origin(point)
    reach = VOXEL_MM * (SIZE - 1)
    corners = np.array(origin) + reach * np.array(list(product((0, 1), repeat=3)))
    part = volume.crop(corners)
    if part is None:
        return np.zeros((SIZE,) * 3, np.float32)
    resample = sitk.ResampleImageFilter()
    resample.SetSize((SIZE,) * 3)
    resample.SetOutputSpacing((VOXEL_MM,) * 3)
    resample.SetOutputOrigin(origin)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(AIR_HU)
    hu = resample.Execute(part)
    return scale_hu(sitk.GetArrayViewFromImage(hu))
