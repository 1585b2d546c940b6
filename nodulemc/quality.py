"""Warnings about a scan and its patches: reasons to read a probability with caution, never to refuse it.

The training data are LUNA25's: low-dose screening CTs without contrast agent from the National Lung Screening Trial,
with slices of 1 to 3.2 mm. Thresholds that do not follow from them are marked as chosen. docs/reliability.md lists all.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ct.volume import Volume
from nodulemc.patch import EXTENT_MM, SIZE, VOXEL_MM
from nodulemc.points.nodules import Nodule
from nodulemc.points.placement import (
    BALL_MM,
    LEAST_CONTRAST_HU,
    LEAST_LUNG,
    LUNG_HU,
    REACH_MM,
    OpenAir,
    Surroundings,
    may_be_misread,
    other_reading,
)

TRAINING_SLICE_MM = (1.0, 3.2)
TRAINING_PIXEL_MM = (0.4, 1.0)  # 512 pixels across a field of view of 20 to 50 cm
SMALLEST_SCAN_MM = 60.0  # chosen: a chest whose geometry is in cm measures 30 to 50
AIR_HU = (-1100, -600)  # air and lung
SOFT_TISSUE_HU = (-200, 200)
LEAST_FRACTION = 0.01  # chosen: the least share of air and lung, and of soft tissue, in a chest CT
MOST_NOISE_HU = 150.0  # chosen: twice what is usual at low dose
MOST_SPREAD = 0.3  # chosen: the spread of the members' probabilities
# The words for no contrast agent in a DICOM header. "non-ionic" means that there was one.
_NO_AGENT = re.compile(
    r"(?:(?:no|none|non?[ -]?contrast|not|nil|null|n|n[/.]?a\.?|false|without|w/?o|un-?enhanced|non-?enhanced|nativ\w*"
    r"|ohne|kein\w*|sans|aucun|senza|sin|ningun[oa]|geen|zonder|-+|0+(?:[.,]0*)?(?: ?(?:ml|cc))?)"
    r"(?:[ /,;.-]*(?:given|used|applied|applicable|available|administered|injected|injection|iv|i\.v\.|oral|or|contrast"
    r"|contraste|kontrast(?:mittel)?|km|contrasto|agent|medium|media|material|dye|bolus|enhancement))*\.?)?"
)
_SAMPLE = 1 << 20
_STORED_OFFSET = 1024
_TOLERANCE_MM = 0.05


@dataclass(frozen=True)
class ScanWarnings:
    """Warnings of one scan.

    Attributes:
        scan: Warnings about the scan, and so about each of its nodules.
        nodules: Warnings about each nodule's patch, in the nodules' order.
        ids: The scan's identifiers.
    """

    scan: tuple[str, ...]
    nodules: tuple[tuple[str, ...], ...]
    ids: ScanIds = field(default_factory=ScanIds)


def scan_warnings(volume: Volume) -> tuple[str, ...]:
    """Return warnings about a scan's geometry, intensities and DICOM header."""
    return (*_geometry_warnings(volume.image), *_intensity_warnings(volume.image), *_header_warnings(volume))


def patch_warnings(volume: Volume, nodule: Nodule, around: Surroundings, air: OpenAir) -> tuple[str, ...]:
    """Return warnings about one patch and its nodule's place; ``air`` is the volume's."""
    reach = (SIZE - 1) / 2 * VOXEL_MM
    corners = np.array(nodule.point) + reach * np.array(list(product((-1, 1), repeat=3)))
    beyond = max(map(volume.distance_outside_mm, corners))
    cut = f"its {EXTENT_MM:g} mm cube reaches {beyond:.0f} mm beyond the scan, where air is assumed"
    return (*([cut] if beyond > VOXEL_MM else []), *_placement_warnings(nodule, around, air))


def _placement_warnings(nodule: Nodule, around: Surroundings, air: OpenAir) -> list[str]:
    if around.is_dark and air.holds(nodule.point):
        return ["the point lies outside the body, in the air beside the patient"]
    warnings = []
    if around.contrast_hu < LEAST_CONTRAST_HU:
        warnings.append(f"nothing denser than lung lies within {BALL_MM + REACH_MM:.0f} mm of the point")
    if around.lung_share < LEAST_LUNG:
        low, high = LUNG_HU
        what = f"{around.lung_share:.1%} of its {EXTENT_MM:g} mm cube lies in {low}…{high} HU"
        warnings.append(f"no lung around the point: {what}")
    return warnings


def points_warnings(volume: Volume, nodules: Sequence[Nodule], around: Sequence[Surroundings]) -> tuple[str, ...]:
    """Return warnings about a file's points as a whole."""
    points = [nodule.point for nodule in nodules]
    reading = other_reading(volume, points) if points and may_be_misread(around) else None
    return (f"the points look like {reading}: give x, y, z in mm, LPS",) if reading else ()


def member_warnings(by_member: Array) -> tuple[str, ...]:
    """Return warnings about one nodule's probabilities (number of members,)."""
    low, high = by_member.min(), by_member.max()
    return (f"the members disagree: {low:.2f} to {high:.2f}",) if high - low > MOST_SPREAD else ()


def _geometry_warnings(image: sitk.Image) -> list[str]:
    warnings = []
    x, y, z = image.GetSpacing()
    for what, mm, (low, high) in (
        ("slice spacing", z, TRAINING_SLICE_MM),
        ("pixel spacing", x, TRAINING_PIXEL_MM),
        ("pixel spacing", y, TRAINING_PIXEL_MM),
    ):
        warning = f"{what} {mm:.2f} mm is outside the training data's {low:g} to {high:g} mm"
        if not low - _TOLERANCE_MM <= mm <= high + _TOLERANCE_MM and warning not in warnings:
            warnings.append(warning)
    extent = [n * mm for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    if max(extent) < SMALLEST_SCAN_MM:
        stated = " × ".join(f"{mm:.0f}" for mm in extent)
        warnings.append(f"the scan is only {stated} mm: a small part of a chest, or its spacing is not in mm")
    return warnings


def _intensity_warnings(image: sitk.Image) -> list[str]:
    voxels = sitk.GetArrayViewFromImage(image)
    step = math.ceil(math.sqrt(voxels.size / _SAMPLE))
    sample = voxels[::step, ::step].astype(np.float32)
    if not _is_chest_ct(sample):
        for offset in (_STORED_OFFSET, -_STORED_OFFSET):
            if _is_chest_ct(sample - offset):
                return [f"HU offset suspected: the voxels are those of a chest CT shifted by {offset:+d}"]
        return ["the voxels do not look like a chest CT's in HU: no air and lung, or no soft tissue"]
    noise = _noise(sample)
    if noise > MOST_NOISE_HU:
        return [f"noise of {noise:.0f} HU in soft tissue: a very sharp kernel or a very low dose"]
    return []


def _is_chest_ct(hu: Array) -> bool:
    return all(
        np.count_nonzero((low <= hu) & (hu <= high)) >= LEAST_FRACTION * hu.size
        for low, high in (AIR_HU, SOFT_TISSUE_HU)
    )


def _noise(hu: Array) -> float:
    """Return the standard deviation in HU, from the median difference of neighbours along x in soft tissue."""
    tissue = abs(hu) < 3 * MOST_NOISE_HU
    differences = abs(np.diff(hu, axis=2))[tissue[..., 1:] & tissue[..., :-1]]
    # The median of |difference| is 0.6745·√2 standard deviations of normal noise.
    return float(np.median(differences)) / 0.954 if differences.size else 0.0


def _header_warnings(volume: Volume) -> list[str]:
    warnings = []
    acquisition = volume.acquisition
    modality = acquisition.get("Modality", "CT")
    if modality != "CT":
        warnings.append(f"the DICOM modality is {modality[:16]!r}, not CT")
    if not _NO_AGENT.fullmatch(acquisition.get("ContrastBolusAgent", "").strip().lower()):
        warnings.append("a contrast agent was given; the training data are without")
    unit = acquisition.get("RescaleType", "HU")
    if unit != "HU":
        warnings.append(f"the DICOM rescale type is {unit[:16]!r}, not HU")
    if volume.series_uid is not None and "RescaleSlope" not in acquisition:
        warnings.append("the DICOM header states no rescaling; the stored values are taken for HU")
    if padding := acquisition.get("PixelPaddingValue"):
        warnings.append(
            f"the DICOM header calls {padding} HU padding, but pixels inside have it; they are kept as tissue"
        )
    try:
        thickness = float(acquisition.get("SliceThickness", "nan"))
    except ValueError:
        thickness = math.nan
    low, high = TRAINING_SLICE_MM
    if not (math.isnan(thickness) or low - _TOLERANCE_MM <= thickness <= high + _TOLERANCE_MM):
        warnings.append(f"slice thickness {thickness:g} mm is outside the training data's {low:g} to {high:g} mm")
    return warnings
