"""The growth of nodules since an earlier scan, as far as it is beyond doubt."""

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.measure.dates import scan_date
from nodulemc.measure.mask import AT_EDGE, AT_SCANS_EDGE, NoduleMask, segment
from nodulemc.measure.matching import DoubtError, Match, Matching, MeasuredScan
from nodulemc.measure.sizes import Measurements, measure
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.points.reading import read_points
from nodulemc.prediction import NodulePrediction, prepare_inputs, with_warnings
from nodulemc.quality import ScanWarnings

logger = logging.getLogger(__name__)
# A smaller change is within the error of measuring. Source: Callister et al., Thorax 2015;70 Suppl 2:ii1–ii54 (British
# Thoracic Society).
LEAST_CHANGE_PERCENT = 25.0
THICKEST_SLICE = 0.25  # a share of a nodule's diameter; docs/measurements.md shows the effect of thicker slices


@dataclass(frozen=True)
class Prior:
    """An earlier scan of a patient.

    Attributes:
        volume: The scan.
        nodules: Its nodules.
        patches: Their patches, from ``nodulemc.prediction.prepare_inputs``.
        warnings: Their warnings, from the same.
        days: The days from this scan to the later one. None if a date is not known.
    """

    volume: Volume
    nodules: Sequence[Nodule]
    patches: Array
    warnings: ScanWarnings
    days: int | None


@dataclass(frozen=True)
class Growth:
    """A nodule's change since the prior scan; every value is None if it is in doubt.

    Attributes:
        prior_nodule: The prior scan's nodule, by its name or its position from 1.
        prior_volume_mm3: The prior nodule's volume.
        interval_days: The days from the prior scan to this one. None if a date is not known.
        volume_change_percent: The change in % of the prior volume, negative if the nodule has shrunk.
        volume_doubling_time_days: Negative if the nodule has shrunk. None without an interval or a change.
        exceeds_error: Whether the change is 25 % or more, and so exceeds the error of measuring.
        prior_distance_mm: The distance from the prior nodule's centre to the place where registration expects it.
        registration_similarity: The correlation of the two scans in the lung around the nodule.
    """

    prior_nodule: str | None = None
    prior_volume_mm3: float | None = None
    interval_days: int | None = None
    volume_change_percent: float | None = None
    volume_doubling_time_days: float | None = None
    exceeds_error: bool | None = None
    prior_distance_mm: float | None = None
    registration_similarity: float | None = None


_Found = tuple[Growth, tuple[str, ...]]  # a nodule's growth, and warnings about it


def volume_change_percent(before: float, after: float) -> float:
    """Return the change of a volume in % of the volume before."""
    return 100 * (after / before - 1)


def volume_doubling_time_days(before: float, after: float, days: int) -> float | None:
    """Return ln 2 · Δt / ln(V₂ / V₁): negative if the volume shrinks, None if it is equal or no day has passed."""
    return math.log(2) * days / math.log(after / before) if days and after != before else None


def read_prior(
    ct: Path,
    points: Path,
    volume: Volume,
    dates: tuple[date | None, date | None] = (None, None),
    *,
    series: str | None = None,
) -> Prior:
    """Read an earlier scan of a patient.

    Args:
        ct: The earlier scan's file or DICOM folder.
        points: The earlier scan's points file (see ``nodulemc.points.reading.read_points``).
        volume: The later scan.
        dates: The later and the earlier scan's date. None stands for the date in its DICOM header.
        series: The SeriesInstanceUID of the earlier scan, if the folder holds several CTs.

    Raises:
        FileError, ImageError: The earlier CT cannot be read or used.
        FileError, TableError, PointsError: Its points cannot be read or used.
    """
    earlier = read_volume(ct, series=series)
    nodules = read_points(points, earlier)
    later_day, day = (given or scan_date(one) for given, one in zip(dates, (volume, earlier), strict=True))
    days = (later_day - day).days if later_day and day else None
    return Prior(earlier, nodules, *prepare_inputs(earlier, nodules), days)


def compared(
    predictions: Sequence[NodulePrediction],
    volume: Volume,
    masks: Sequence[NoduleMask],
    earlier: Prior,
    ensemble: Ensemble,
) -> list[NodulePrediction]:
    """Add ``growth`` to predictions, and warnings about doubts.

    Args:
        predictions: The predictions for one CT, with ``measurements``.
        volume: The CT.
        masks: The nodules' masks, in the predictions' order.
        earlier: The earlier scan.
        ensemble: An ensemble loaded with ``masks=True``.
    """
    if doubt := _doubt(volume, earlier):
        found = [_no_growth(doubt)] * len(predictions)
    else:
        found = _growths(predictions, volume, masks, earlier, ensemble)
    general = tuple(general_warnings(volume, earlier))
    predictions = with_warnings(predictions, [(*general, *warnings) for _, warnings in found])
    return [replace(p, growth=growth) for p, (growth, _) in zip(predictions, found, strict=True)]


def _doubt(volume: Volume, earlier: Prior) -> str | None:
    """Return the reason why the two scans cannot tell growth at all, or None."""
    if earlier.days is not None and earlier.days < 0:
        return f"the prior scan is {-earlier.days} days later; swap the scans, or correct the dates"
    now, before = (sitk.GetArrayViewFromImage(one.image) for one in (volume, earlier.volume))
    # A scan given twice would look like nodules that do not grow.
    return "the prior scan is this scan: all voxels are the same" if np.array_equal(now, before) else None


def _no_growth(doubt: object) -> _Found:
    return Growth(), (f"no growth: {doubt}",)


def _growths(
    predictions: Sequence[NodulePrediction],
    volume: Volume,
    masks: Sequence[NoduleMask],
    earlier: Prior,
    ensemble: Ensemble,
) -> list[_Found]:
    """Return each nodule's growth and warnings about it; for the arguments see ``compared``."""
    sizes = [prediction.measurements or Measurements() for prediction in predictions]
    scan = MeasuredScan(volume, [prediction.nodule for prediction in predictions], masks, sizes)
    prior = _measured(earlier, ensemble)
    matching = Matching(scan, prior)
    _log_unmatched(earlier, matching.matched())
    return [_growth(k, matching, scan, prior, earlier) for k in range(len(predictions))]


def _log_unmatched(earlier: Prior, matched: Collection[int]) -> None:
    """Log the nodules of the prior scan that match none of this scan: they may have disappeared."""
    left = [nodule.name or str(j) for j, nodule in enumerate(earlier.nodules, start=1)]
    if left := [shortened(name) for j, name in enumerate(left) if j not in matched]:
        logger.warning("%s: not found again: %s", earlier.volume.source, ", ".join(left))


def _measured(earlier: Prior, ensemble: Ensemble) -> MeasuredScan:
    points = [nodule.point for nodule in earlier.nodules]
    masks = segment(earlier.volume, points, earlier.patches, ensemble)
    return MeasuredScan(earlier.volume, earlier.nodules, masks, [measure(earlier.volume, mask) for mask in masks])


def _growth(k: int, matching: Matching, scan: MeasuredScan, prior: MeasuredScan, earlier: Prior) -> _Found:
    """Return a nodule's growth, and warnings about it."""
    try:
        found, before, after = _counterpart(k, matching, scan, prior)
    except DoubtError as doubt:
        return _no_growth(doubt)
    j, warnings = found.index, earlier.warnings
    change = volume_change_percent(before, after)
    growth = Growth(
        prior_nodule=prior.nodules[j].name or str(j + 1),
        prior_volume_mm3=before,
        interval_days=earlier.days,
        volume_change_percent=change,
        volume_doubling_time_days=volume_doubling_time_days(before, after, earlier.days or 0),
        exceeds_error=abs(change) >= LEAST_CHANGE_PERCENT,
        prior_distance_mm=found.distance_mm,
        registration_similarity=found.similarity,
    )
    said = (*warnings.scan, *warnings.nodules[j], *prior.masks[j].warnings, *_thick(prior, j))
    return growth, (*(f"prior scan: {warning}" for warning in said), *_thick(scan, k), *_small(growth))


def _counterpart(k: int, matching: Matching, scan: MeasuredScan, prior: MeasuredScan) -> tuple[Match, float, float]:
    """Return a nodule's counterpart, the counterpart's volume and the nodule's volume, in mm³.

    Raises:
        DoubtError: there is none, or one is not measured as a whole.
    """
    found = matching.match(k)
    after = _volume_mm3(scan, k, "its mask")
    before = _volume_mm3(prior, found.index, f"the mask of {prior.names[found.index]} of the prior scan")
    return found, before, after


def _volume_mm3(scan: MeasuredScan, k: int, what: str) -> float:
    """Return a nodule's volume, if it is measured as a whole; ``what`` names its mask in the doubt."""
    volume_mm3 = scan.sizes[k].volume_mm3
    if volume_mm3 is None:
        raise DoubtError(f"{what} is missing")
    for warning, edge in ((AT_EDGE, "its cube"), (AT_SCANS_EDGE, "the scan")):
        if warning in scan.masks[k].warnings:
            raise DoubtError(f"{what} is cut off at the edge of {edge}")
    return volume_mm3


def _thick(scan: MeasuredScan, k: int) -> Iterator[str]:
    slice_mm, diameter = max(scan.volume.image.GetSpacing()), scan.sizes[k].effective_diameter_mm
    if diameter is not None and slice_mm > THICKEST_SLICE * diameter:
        yield f"slices of {slice_mm:.2f} mm are too thick to tell the growth of a nodule of {diameter:.0f} mm"


def _small(growth: Growth) -> Iterator[str]:
    if not growth.exceeds_error:
        change, least = growth.volume_change_percent, LEAST_CHANGE_PERCENT
        yield f"a change of {change:+.0f} % is within the error of measuring, up to {least:g} % (BTS 2015)"


def general_warnings(volume: Volume, earlier: Prior) -> Iterator[str]:
    """Return warnings about the two scans together."""
    patient, prior_patient = volume.ids.patient, earlier.volume.ids.patient
    if patient is not None and prior_patient is not None and patient != prior_patient:
        yield "the prior scan states another PatientID"
    if earlier.days is None:
        yield "no doubling time: a scan's date is not known; give --date and --prior-date"
    if earlier.days == 0:
        yield "no doubling time: both scans are of the same date"
