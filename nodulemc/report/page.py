"""One scan's page: its nodules' pictures and numbers, in a file that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from nodulemc import __version__
from nodulemc.ensemble.calibration import apply_calibration, describe_calibration
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.errors import printable
from nodulemc.measure.mask import NoduleMask
from nodulemc.output.detailed import uncalibrated
from nodulemc.patch import EXTENT_MM
from nodulemc.prediction import NodulePrediction
from nodulemc.report.explain import Explanation
from nodulemc.report.explain_check import Check, read_checks
from nodulemc.report.occlusion import CELLS, MAP
from nodulemc.report.outline import UNITS, path
from nodulemc.report.pictures import PLANES, WINDOWS, View
from nodulemc.report.templates import render
from nodulemc.report.words import Fact, facts, meaning, not_explained, ratings, risks, without

BAR_MM = 10
# The letters at a picture's left and upper edge: right, anterior, head.
_EDGES = {"axial": ("R", "A"), "coronal": ("R", "H"), "sagittal": ("A", "H")}


@dataclass(frozen=True)
class Origin:
    """The origin of the results.

    Attributes:
        manifest: The ensemble's manifest.
        device: The device it ran on.
        precision: The number format it ran in.
        calibrated: Whether its calibration was applied.
    """

    manifest: EnsembleManifest
    device: str
    precision: str
    calibrated: bool

    @classmethod
    def of(cls, ensemble: Ensemble, *, calibrated: bool) -> "Origin":
        """Return the origin of results from a loaded ensemble."""
        return cls(ensemble.manifest, ensemble.device, ensemble.precision, calibrated)


@dataclass(frozen=True)
class Finding:
    """One nodule.

    Attributes:
        prediction: Its prediction.
        view: Its pictures.
        mask: Its mask. None if the ensemble has no decoder.
        explanation: The explanation of its probability. None if it was not asked for or must not be shown.
    """

    prediction: NodulePrediction
    view: View
    mask: NoduleMask | None = None
    explanation: Explanation | None = None


def case_page(
    scan: str,
    findings: Sequence[Finding],
    origin: Origin,
    *,
    series: str | None = None,
    key: str = "",
    explains: bool = False,
) -> str:
    """Return a scan's page as HTML.

    Args:
        scan: The scan's name, for the title.
        findings: Its nodules, in their order.
        origin: The origin of the predictions.
        series: The SeriesInstanceUID of a DICOM series.
        key: An identifier of the result in the page, for programs.
        explains: Whether explanations were asked for. The page then names those that are not shown.
    """
    scan = printable(scan)
    checks = read_checks(origin.manifest) if explains else {}
    predictions = [finding.prediction for finding in findings]
    general = _general(predictions)
    nodules = [
        _nodule(k, finding, origin, general) | _explanation(finding, checks)
        for k, finding in enumerate(findings, start=1)
    ]
    return render(
        __package__,
        "page.html.jinja",
        script="page.js",
        scan=scan,
        key=key,
        nodules=nodules,
        general=general,
        made=[Fact("CT", scan, f"series {series}" if series else ""), *_made(origin)],
        segments=origin.manifest.segments,
        windows=WINDOWS,
        bar_mm=BAR_MM,
        units=UNITS,
        extent_mm=EXTENT_MM,
        not_explained=not_explained(checks) if explains else "",
    )


def _general(predictions: Sequence[NodulePrediction]) -> list[str]:
    """Return the warnings that all of several nodules share. They are about the scan."""
    if len(predictions) < 2:
        return []
    times = Counter(warning for prediction in predictions for warning in dict.fromkeys(prediction.warnings))
    return [warning for warning, number in times.items() if number == len(predictions)]


def _nodule(number: int, finding: Finding, origin: Origin, general: Sequence[str]) -> dict[str, Any]:
    """Return the template's values for a nodule."""
    prediction, view = finding.prediction, finding.view
    return {
        "name": printable(prediction.nodule.name or str(number)),
        "id": f"nodule-{number}",
        "point": prediction.nodule.point,
        "warnings": [warning for warning in prediction.warnings if warning not in general],
        "planes": {name: _plane(name, finding) for name in PLANES},
        "level": view.levels.index(view.centre[0]),
        "levels": [_level(view, z) for z in view.levels],
        "step": view.step,
        "overview": view.overview,
        "has_mask": finding.mask is not None and bool(finding.mask.voxels.any()),
        "size": _size(prediction),
        **_probability(prediction, origin),
        "tables": _tables(prediction, origin.manifest),
    }


def _plane(name: str, finding: Finding) -> dict[str, Any]:
    picture = finding.view.planes[name]
    outlines = [] if finding.mask is None else [path(field) for field in finding.view.mask_planes(finding.mask)[name]]
    return {
        "slices": picture.slices,
        "columns": picture.size[0],
        "rows": picture.size[1],
        "width_mm": picture.extent_mm[0],
        "height_mm": picture.extent_mm[1],
        "outlines": outlines,
        "edges": _EDGES[name],
    }


def _level(view: View, z: int) -> dict[str, float]:
    """Return an axial slice's height over the point's, and its place in coronal and sagittal pictures, in per cent."""
    rows, height = view.planes["coronal"].size[1], view.planes["coronal"].extent_mm[1]
    return {
        "mm": round((z - view.centre[0]) * height / rows, 2),
        "down": round(100 * (rows - z - 0.5) / rows, 2),
    }


def _explanation(finding: Finding, checks: Mapping[str, Check] | None) -> dict[str, Any]:
    """Return the template's values for a nodule's explanation."""
    found = finding.explanation
    if found is None or not checks:  # the page says that there are none
        return {"without": [], "map": {}}
    prediction = finding.prediction
    changes = found.changes(prediction.probability)
    shown = finding.view.change_planes(changes, prediction.nodule.point) if found.cells else {}
    return {
        "without": without(found.parts, prediction.probability, checks),
        "map": shown,
        "most": {"raises": changes.max(), "lowers": abs(changes.min())},
        "cell_mm": EXTENT_MM / CELLS,
        "map_check": checks.get(MAP),
    }


def _size(prediction: NodulePrediction) -> str:
    found = prediction.measurements
    return "" if found is None or found.size_mm is None else f"{found.size_mm} mm"


def _probability(prediction: NodulePrediction, origin: Origin) -> dict[str, Any]:
    manifest = origin.manifest
    vote = uncalibrated(prediction, manifest)
    calibrated = None
    if manifest.calibration is not None:
        calibrated = float(apply_calibration(vote, manifest.calibration))
    shares = manifest.vote_weights
    return {
        "probability": prediction.probability,
        "members": list(zip(manifest.member_names, prediction.member_probabilities, shares, strict=True)),
        "spread": prediction.spread,
        "vote": vote,
        "calibrated": calibrated,
        "calibration": manifest.calibration and describe_calibration(manifest.calibration),
        "is_calibrated": origin.calibrated,
        "meaning": meaning(manifest, calibrated),
    }


def _tables(prediction: NodulePrediction, manifest: EnsembleManifest) -> dict[str, list[Fact]]:
    """Return the tables under a nodule's pictures by their headings. Add further tables here."""
    tables = {
        "Measurements of the mask": facts(prediction.measurements) if prediction.measurements else [],
        "Growth": facts(prediction.growth) if prediction.growth else [],
        "Attributes, as readers would rate them": ratings(manifest.attributes, prediction.attributes),
        "Clinical risk models": risks(prediction.risk or {}),
    }
    return {heading: rows for heading, rows in tables.items() if rows}


def _made(origin: Origin) -> list[Fact]:
    """Return the facts about how the page was made."""
    manifest = origin.manifest
    calibration = "applied" if origin.calibrated else "not applied to the main number"
    stated = manifest.calibration and describe_calibration(manifest.calibration)
    now = datetime.now(timezone.utc)
    return [
        Fact("Program", f"nodulemc {__version__}"),
        Fact("Time", f"{now:%Y-%m-%d %H:%M} UTC"),
        Fact("Device", f"{origin.device}, {origin.precision}"),
        Fact("Ensemble", f"{len(manifest.members)} members", f"SHA-256 {manifest.sha256}"),
        Fact("Trained on", manifest.trained_on or "nothing (untrained)"),
        Fact("Calibration", f"{stated}; {calibration}" if stated else "none"),
        Fact("Licence of the weights", manifest.licence or "not stated"),
    ]
