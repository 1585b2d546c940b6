"""Digital balls and ellipsoids on the patch's grid, and CTs of any grid to measure them in."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.volume import Volume
from nodulemc.patch import CENTRE_INDEX, SIZE, VOXEL_MM


def ellipsoid(halves, axes=None, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Share of each patch voxel (64, 64, 64), axes z, y, x, that an ellipsoid takes.

    Args:
        halves: half axes in mm.
        axes: (3, 3) their directions as columns; None: x, y, z.
        shift: of its centre from the nodule's point, x, y, z in mm.
    """
    z, y, x = (np.indices((SIZE,) * 3) - CENTRE_INDEX) * VOXEL_MM
    local = (np.stack([x, y, z], axis=-1) - shift) @ (np.eye(3) if axes is None else axes)
    radius = np.linalg.norm(local / halves, axis=-1)
    slope = np.linalg.norm(local / np.square(halves), axis=-1)
    inwards = (1 - radius) * radius / np.maximum(slope, 1e-6)
    return np.clip(inwards / VOXEL_MM + 0.5, 0, 1)


def ball(diameter, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    return ellipsoid([diameter / 2] * 3, shift=shift)


def make_volume(spacing=(0.7, 0.7, 1.25), direction=None, extent=80.0, hu=0) -> Volume:
    """A CT of one HU everywhere."""
    image = sitk.Image([round(extent / mm) for mm in spacing], sitk.sitkInt16) + hu
    image.SetSpacing(spacing)
    image.SetOrigin((-31.3, 12.4, -140.7))
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    return Volume(image, Path("ct.mha"))


def middle(volume: Volume, offset=(0.0, 0.0, 0.0)) -> list[float]:
    """World point of the CT's middle, so many voxels aside."""
    index = [(n - 1) / 2 + d for n, d in zip(volume.image.GetSize(), offset, strict=True)]
    return list(volume.image.TransformContinuousIndexToPhysicalPoint(index))
