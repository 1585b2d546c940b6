"""A patch of a nodule with spicules beside the chest wall."""

import numpy as np
from digital_shapes import ball

from nodulemc.patch import CENTRE_INDEX, SIZE, VOXEL_MM, scale_hu

LUNG_HU, TISSUE_HU, NOISE_HU = -860.0, 40.0, 25.0
DIAMETER = 12.0
Z, Y, X = (np.indices((SIZE,) * 3) - CENTRE_INDEX) * VOXEL_MM
AWAY = np.sqrt(Z**2 + Y**2 + X**2)
MASK = ball(DIAMETER) > 0.5
SPICULES = (np.hypot(Z, Y) < 0.9) & (abs(X) > DIAMETER / 2) & (abs(X) < DIAMETER / 2 + 5)
WALL = Y > 8
NEAR_WALL = (Y > 8.5) & (AWAY < 10.2)


def smoothed(field):
    """By about a scanner's blur, without a library's filter."""
    for axis in range(3):
        ends = np.pad(field, [(int(k == axis),) * 2 for k in range(3)], mode="edge")
        first, second, third = (ends.take(range(k, k + SIZE), axis) for k in range(3))
        field = (first + 2 * second + third) / 4
    return field


def make_patch(noise_hu=NOISE_HU, spicules=True):
    """A ball with two spicules along x, and the chest wall 2 mm beside it along y."""
    dense = np.maximum(ball(DIAMETER), WALL | (SPICULES if spicules else False))
    noise = np.random.default_rng(5).normal(0, noise_hu, dense.shape)
    return scale_hu((LUNG_HU + (TISSUE_HU - LUNG_HU) * smoothed(dense) + noise).astype(np.float32))
