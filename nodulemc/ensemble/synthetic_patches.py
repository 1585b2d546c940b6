"""Synthetic patches for measuring precision and speed. Needs no torch."""

import numpy as np

from nodulemc.arrays import Array
from nodulemc.patch import CENTRE_INDEX, SIZE, VOXEL_MM, scale_hu

_DIAMETERS_MM = (4, 6, 8, 10, 13, 16, 20, 24)
_LUNG_HU = -850
_NOISE_HU = 60
# Ground glass, part-solid and solid in turn.
_NODULE_HU = (-600, -250, 30)


def probe_patches() -> Array:
    """Return nodule-like patches, always the same: spheres of 4 to 24 mm in noisy lung, ground glass to solid.

    Returns:
        float32 (8, 64, 64, 64), axes z, y, x, values 0…1.
    """
    random = np.random.default_rng(0)
    offsets = (np.arange(SIZE) - CENTRE_INDEX) * VOXEL_MM
    distance = np.sqrt(offsets[:, None, None] ** 2 + offsets[:, None] ** 2 + offsets**2)
    patches = []
    for k, diameter in enumerate(_DIAMETERS_MM):
        inside = np.clip((diameter / 2 - distance) / VOXEL_MM + 0.5, 0, 1)
        hu = _LUNG_HU + inside * (_NODULE_HU[k % len(_NODULE_HU)] - _LUNG_HU)
        patches.append(scale_hu((hu + random.normal(0, _NOISE_HU, hu.shape)).astype(np.float32)))
    return np.stack(patches)
