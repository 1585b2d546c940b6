"""From one CT and its nodules to predictions: the part that all programs share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.checks import check_grid
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.ensemble.trained_cases import with_warning
from nodulemc.errors import PointsError
from nodulemc.limits import FACE_TOLERANCE_MM
from nodulemc.patch import SIZE, extract_patch
from nodulemc.points.nodules import Nodule, as_nodules, shortened
from nodulemc.points.placement import OpenAir, other_reading, surroundings
from nodulemc.points.reading import read_points, scan_name
from nodulemc.quality import ScanWarnings, member_warnings, patch_warnings, points_warnings, scan_warnings
from nodulemc.util.progress import QUIET_S, progress

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.measure.growth import Growth
    from nodulemc.measure.sizes import Measurements

logger = logging.getLogger(__name__)
Read = TypeVar("Read")
Loaded = TypeVar("Loaded")

# The number of nodules scored between two checks of the clock: a GPU's batch. A CPU gains nothing from batches.
_AT_ONCE = {"cpu": 1, "cuda": 32}


@dataclass(frozen=True)
class NodulePrediction:
    """The result for one nodule.

    Attributes:
        nodule: The nodule's name and point.
        probability: The probability of malignancy, 0…1: the soft vote of all members of the ensemble.
        member_probabilities: Each member's probability, 0…1, in the ensemble's order.
        warnings: Reasons to read the probability with caution, one sentence each.
        attributes: Predicted ratings of the nodule's look, on the radiologists' scale, in the order of the ensemble's
            ``manifest.attributes``. Empty if the ensemble predicts none.
        measurements: The nodule's sizes in mm, mm³, HU and mg. None if they were not asked for.
        risk: The results of the clinical risk models (see ``nodulemc.measure.risk.assess``). None if they were not
            asked for.
        growth: The change since an earlier scan. None if it was not asked for.

    Examples:
        >>> from nodulemc import Nodule, NodulePrediction
        >>> nodule = Nodule("1", (-110.6, -44.7, -217.8))
        >>> prediction = NodulePrediction(nodule, 0.6, member_probabilities=(0.5, 0.6, 0.75))
        >>> prediction.spread
        0.25
    """

    nodule: Nodule
    probability: float
    member_probabilities: tuple[float, ...]
    warnings: tuple[str, ...] = ()
    attributes: tuple[float, ...] = ()
    measurements: Measurements | None = None
    risk: dict[str, dict[str, Any]] | None = None
    growth: Growth | None = None

    @property
    def spread(self) -> float:
        """The largest minus the smallest of the members' probabilities, 0…1."""
        return max(self.member_probabilities) - min(self.member_probabilities)


def predict(
    ct: str | Path | sitk.Image | Volume,
    points: str | Path | Iterable[Nodule | Sequence[float] | Array],
    ensemble: Ensemble,
    *,
    series: str | None = None,
) -> list[NodulePrediction]:
    """Predict the probability of malignancy of each nodule in one CT.

    Args:
        ct: A CT in HU: a file, a folder with a DICOM series, a SimpleITK image, or a volume that was read before.
        points: The nodules: a points file (see ``nodulemc.points.reading.read_points``), ``Nodule`` objects, or points
            x, y, z in mm (LPS), such as the rows of an array (N, 3).
        ensemble: The ensemble that votes. Load it once and use it for many CTs.
        series: The SeriesInstanceUID of the series to read, if a DICOM folder holds several CTs.

    Returns:
        One prediction for each nodule, in the order of ``points``.

    Raises:
        FileError, TableError: A file cannot be read.
        ImageError: The CT cannot be used.
        PointsError: The points cannot be used, or one of them lies outside the CT.
        EnsembleError: A member's numbers overflow.

    Examples:
        >>> from nodulemc import Ensemble, predict
        >>> ct = "test/input/images/chest-ct/ct.mha"
        >>> for prediction in predict(ct, "test/input/nodule-locations.json", Ensemble.load()):
        ...     print(prediction.nodule.name, f"{prediction.probability:.2f}")
        12000002_1_19990102 0.10
        12000002_2_19990102 0.98
    """
    volume = _as_volume(ct, series)
    nodules = read_points(points, volume) if isinstance(points, (str, Path)) else as_nodules(points)
    return predict_patches(nodules, *prepare_inputs(volume, nodules), ensemble)


def prepare_inputs(volume: Volume, nodules: Sequence[Nodule]) -> tuple[Array, ScanWarnings]:
    """Return the patches of all nodules (see ``extract_patches``), and warnings about them and the scan."""
    patches = extract_patches(volume, nodules)
    around = [surroundings(patch) for patch in patches]
    air = OpenAir(volume)
    about = (patch_warnings(volume, nodule, place, air) for nodule, place in zip(nodules, around, strict=True))
    ids = replace(volume.ids, uids=volume.ids.uids | {scan_name(volume.source)})
    return patches, ScanWarnings((*scan_warnings(volume), *points_warnings(volume, nodules, around)), tuple(about), ids)


def predict_patches(
    nodules: Sequence[Nodule],
    patches: Array,
    warnings: ScanWarnings,
    ensemble: Ensemble,
    *,
    show_progress: bool = False,
) -> list[NodulePrediction]:
    """Predict the nodules, in their order, from the results of ``prepare_inputs``; log the warnings."""
    if show_progress:
        by_member, attributes = in_turn(lambda part: ensemble.findings(patches[part]), len(patches), ensemble.device)
    else:
        by_member, attributes = ensemble.findings(patches)
    return concluded(nodules, warnings, by_member, attributes, ensemble)


def in_turn(find: Callable[[slice], tuple[Any, ...]], count: int, device: str) -> tuple[Any, ...]:
    """Call ``find`` on parts of ``count`` nodules and join its results; show progress if this takes a while."""
    size = _AT_ONCE[device]
    if count <= size:
        return find(slice(None))
    rows = (row for k in range(0, count, size) for row in zip(*find(slice(k, k + size)), strict=True))
    return tuple(zip(*progress(rows, count, "nodules", quiet_s=QUIET_S), strict=True))


def concluded(
    nodules: Sequence[Nodule],
    warnings: ScanWarnings,
    by_member: Sequence[Array],
    attributes: Sequence[Array],
    ensemble: Ensemble,
) -> list[NodulePrediction]:
    """Make predictions from the results of ``prepare_inputs`` and ``Ensemble.findings``; log the warnings."""
    votes = np.array(by_member)
    if ensemble.trained_cases:
        warnings = replace(warnings, scan=with_warning(warnings.scan, ensemble.trained_cases.seen(warnings.ids)))
    for warning in warnings.scan:
        logger.warning("%s", warning)
    _log_warnings(
        nodules, [(*own, *member_warnings(values)) for own, values in zip(warnings.nodules, votes, strict=True)]
    )
    return assemble_predictions(nodules, warnings, votes, ensemble.vote(votes), np.array(attributes), ensemble.caveat)


def with_warnings(
    predictions: Sequence[NodulePrediction], warnings: Sequence[tuple[str, ...]]
) -> list[NodulePrediction]:
    """Add further warnings to each prediction, and log them."""
    _log_warnings([prediction.nodule for prediction in predictions], warnings)
    return [replace(p, warnings=(*p.warnings, *own)) for p, own in zip(predictions, warnings, strict=True)]


def _log_warnings(nodules: Sequence[Nodule], warnings: Sequence[tuple[str, ...]]) -> None:
    for k, (nodule, own) in enumerate(zip(nodules, warnings, strict=True), start=1):
        for warning in own:
            logger.warning("nodule %s: %s", shortened(nodule.name or k), warning)


def assemble_predictions(
    nodules: Sequence[Nodule],
    warnings: ScanWarnings,
    by_member: Array,
    probabilities: Array,
    attributes: Array,
    caveat: str | None,
) -> list[NodulePrediction]:
    """Join everything known about each nodule to a prediction.

    Args:
        nodules: The nodules.
        warnings: Their warnings, from ``prepare_inputs``.
        by_member: The members' probabilities (N, number of members).
        probabilities: The ensemble's probabilities (N,).
        attributes: The ensemble's ratings, on the readers' scale (N, number of attributes).
        caveat: The ensemble's warning about all its numbers, or None.
    """
    general = (*((caveat,) if caveat else ()), *warnings.scan)
    return [
        NodulePrediction(
            nodule, float(p), tuple(votes.tolist()), (*general, *own, *member_warnings(votes)), tuple(told.tolist())
        )
        for nodule, own, p, votes, told in zip(
            nodules, warnings.nodules, probabilities, by_member, attributes, strict=True
        )
    ]


def extract_patches(volume: Volume, nodules: Sequence[Nodule]) -> Array:
    """Return the patches of all nodules: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

    Raises:
        PointsError: a nodule's point lies outside the CT.
        ImageError: a voxel under a patch is NaN or infinite.
    """
    for k, nodule in enumerate(nodules, start=1):
        outside = volume.distance_outside_mm(nodule.point)
        if outside > FACE_TOLERANCE_MM:
            reading = other_reading(volume, [nodule.point for nodule in nodules])
            raise PointsError(
                f"nodule {shortened(nodule.name or k)} lies {round(outside, 3):g} mm outside the CT",
                volume.source,
                f"give x, y, z in mm, LPS; the file's points look like {reading}"
                if reading
                else "check that point and CT belong together and that the point is x, y, z in mm, LPS",
            )
    patches = np.empty((len(nodules), SIZE, SIZE, SIZE), np.float32)
    for patch, nodule in zip(patches, nodules, strict=True):
        patch[:] = extract_patch(volume, nodule.point)
    return patches


def _as_volume(ct: str | Path | sitk.Image | Volume, series: str | None) -> Volume:
    if isinstance(ct, Volume):
        return ct
    if isinstance(ct, sitk.Image):
        check_grid(ct, Path("image"))
        return Volume(ct, Path("image"))
    return read_volume(ct, series=series)


def side_by_side(read: Callable[[], Read], load: Callable[[], Loaded]) -> tuple[Read, Loaded]:
    """Read a case while the ensemble is being loaded, since each keeps one core busy.

    ``read`` runs in a second thread. If both fail, its exception is raised.
    """
    # Importing it takes milliseconds, which loading an ensemble hides.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            loaded = load()
        except Exception:
            reading.result()
            raise
        return reading.result(), loaded
