"""A nodule's sizes, from its mask on the scan's own grid. docs/measurements.md states the conventions."""

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.measure.axes import Axes, longest_axes
from nodulemc.measure.mask import THRESHOLD, NoduleMask

# The solid part is brighter. Source: Scholten et al., PLoS ONE 2013;8:e80249.
SOLID_HU = -300.0
_HU_RANGE = 600.0  # across the threshold; tissue at 0 HU is all in, as a probability of 1
_NO_AXES = Axes(0.0, 0.0)


@dataclass(frozen=True)
class Measurements:
    """A nodule's measurements; every value is None if there is no mask.

    Attributes:
        volume_mm3: The volume of the mask's voxels.
        long_axis_mm: The longest axial diameter.
        short_axis_mm: The longest diameter at right angles to it on the same slice.
        size_mm: The mean of the two to the nearest mm (Fleischner Society 2017).
        effective_diameter_mm: The diameter of a sphere of this volume.
        mean_hu: The mean of the CT in the mask.
        mass_mg: Volume times density.
        solid_volume_mm3: The volume of the voxels above −300 HU.
        solid_long_axis_mm: The longest axial diameter of these voxels; 0 if there are none.
        solid_short_axis_mm: The longest diameter at right angles to it; 0 if there are none.
        point_distance_mm: The distance from the nodule's point to the mask, 0 within it.
    """

    volume_mm3: float | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    size_mm: int | None = None
    effective_diameter_mm: float | None = None
    mean_hu: float | None = None
    mass_mg: float | None = None
    solid_volume_mm3: float | None = None
    solid_long_axis_mm: float | None = None
    solid_short_axis_mm: float | None = None
    point_distance_mm: float | None = None


def measure(volume: Volume, mask: NoduleMask) -> Measurements:
    """Measure a nodule.

    Args:
        volume: The CT.
        mask: The nodule's mask, on the CT's grid.
    """
    voxels = mask.voxels
    if not voxels.any():
        return Measurements()
    hu = sitk.GetArrayViewFromImage(volume.image)[mask.slices].astype(np.float64)
    voxel_mm3 = _voxel_mm3(volume.image)
    volume_mm3 = float(voxel_mm3 * np.count_nonzero(voxels))
    mean_hu = float(hu[voxels].mean())
    outline = mask.probability.astype(np.float64) - THRESHOLD
    axes = _axial(volume.image, outline) or _NO_AXES
    brightness = np.clip((hu - SOLID_HU) / _HU_RANGE, -0.5, 0.5)
    solid = _axial(volume.image, np.minimum(outline, brightness)) or _NO_AXES
    return Measurements(
        volume_mm3=volume_mm3,
        long_axis_mm=axes.long_mm,
        short_axis_mm=axes.short_mm,
        size_mm=math.floor((axes.long_mm + axes.short_mm) / 2 + 0.5),
        effective_diameter_mm=(6 * volume_mm3 / math.pi) ** (1 / 3),
        mean_hu=mean_hu,
        mass_mg=mass_mg(volume_mm3, mean_hu),
        solid_volume_mm3=float(voxel_mm3 * np.count_nonzero(voxels & (hu > SOLID_HU))),
        solid_long_axis_mm=solid.long_mm,
        solid_short_axis_mm=solid.short_mm,
        point_distance_mm=mask.point_distance_mm,
    )


def mass_mg(volume_mm3: float, mean_hu: float) -> float:
    """Return a nodule's mass: 1 mm³ weighs 1 mg at 0 HU and nothing at −1000 HU.

    Source: de Hoop et al., Radiology 2010;255:199–206.
    """
    return volume_mm3 * (mean_hu + 1000) / 1000


def _voxel_mm3(image: sitk.Image) -> float:
    return float(math.prod(image.GetSpacing()) * abs(np.linalg.det(np.reshape(image.GetDirection(), (3, 3)))))


def _axial(image: sitk.Image, field: Array) -> Axes | None:
    """Return the axes on the scan's own slices, which lie across the grid axis nearest to the body's long axis."""
    across = int(np.argmax(abs(np.reshape(image.GetDirection(), (3, 3))[2])))
    spacing = [mm for axis, mm in enumerate(image.GetSpacing()) if axis != across][::-1]
    return longest_axes(np.moveaxis(field, 2 - across, 0), tuple(spacing))
