"""Detailed results for one CT: Grand-Challenge's points plus each member's probability, their spread and warnings.

Calibrated results state the method, the prevalence, and the vote before calibration.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodulemc.columns import ATTRIBUTE_PREFIX, ENSEMBLE, LUNG_RADS, RISK_MISSING, TRAINED_ON
from nodulemc.ensemble.calibration import PREVALENCES, describe_calibration
from nodulemc.ensemble.manifest import EnsembleManifest, named
from nodulemc.errors import ConfigError, printable
from nodulemc.output.multiple_points import multiple_points
from nodulemc.prediction import NodulePrediction
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.files import prepare_output, refuse_input
from nodulemc.util.json_files import write_json_atomically

OUTPUT_SUFFIXES = (".json", ".csv")


def clear_output(path: Path, inputs: Sequence[Path], suffixes: tuple[str, ...] = OUTPUT_SUFFIXES) -> None:
    """Refuse an unusable output path before any work, make its folder, and remove an earlier run's output.

    Raises:
        ConfigError: the suffix is not one of ``suffixes``, or the file is one of the inputs.
        FileError: the folder cannot be made or written, or the earlier output cannot be removed.
    """
    if not path.name.lower().endswith(suffixes):
        raise ConfigError("unknown output type", path, f"name a {' or '.join(suffixes)} file")
    refuse_input(path, inputs, "output")
    prepare_output(path)


def write_results(
    path: Path, predictions: Sequence[NodulePrediction], manifest: EnsembleManifest, *, calibrated: bool = False
) -> None:
    """Write predictions atomically as JSON or CSV, by the path's suffix.

    Args:
        path: A .json or .csv file.
        predictions: The predictions for one CT.
        manifest: The ensemble's manifest.
        calibrated: Whether the ensemble's calibration was applied.

    Raises:
        FileError: the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        write_json_atomically(path, detailed_json(predictions, manifest, calibrated=calibrated))
    else:
        further = [further_cells(prediction) for prediction in predictions]
        header = [*csv_header(manifest, calibrated=calibrated), *(further[0] if further else ())]
        rows = (csv_row(prediction, manifest, calibrated=calibrated) for prediction in predictions)
        cells = ([*row, *own.values()] for row, own in zip(rows, further, strict=True))
        write_csv_atomically(path, [header, *cells])


def detailed_json(
    predictions: Sequence[NodulePrediction], manifest: EnsembleManifest, *, calibrated: bool = False
) -> dict[str, Any]:
    """Return Grand-Challenge's output with ``per_seed``, ``spread`` and ``warnings`` in each point, and the ensemble.

    Points have ``attributes`` (readers' ratings by name, on their scale) if the ensemble predicts them. They have
    ``measurements``, ``risk`` and ``growth`` if these were asked for. Calibrated points have ``uncalibrated``, and the
    file has the map's method and prevalences as ``calibration``.
    """
    content = multiple_points(predictions)
    for point, prediction in zip(content["points"], predictions, strict=True):
        point["per_seed"] = dict(zip(manifest.member_names, prediction.member_probabilities, strict=True))
        point["spread"] = prediction.spread
        point["warnings"] = list(prediction.warnings)
        if manifest.attributes:
            point["attributes"] = dict(zip(manifest.attributes, prediction.attributes, strict=True))
        if calibrated:
            point["uncalibrated"] = uncalibrated(prediction, manifest)
        if prediction.measurements is not None:
            point["measurements"] = asdict(prediction.measurements)
        if prediction.risk is not None:
            point["risk"] = prediction.risk
        if prediction.growth is not None:
            point["growth"] = asdict(prediction.growth)
    if calibrated:
        content["calibration"] = {name: manifest.calibration_map[name] for name in ("method", *PREVALENCES)}
    return content | {"ensemble": manifest.identity, "trained_on": manifest.trained_on}


def uncalibrated(prediction: NodulePrediction, manifest: EnsembleManifest) -> float:
    """Return the vote of a prediction's members before calibration."""
    return float(prediction.member_probabilities @ manifest.vote_weights)


def csv_header(manifest: EnsembleManifest, *, calibrated: bool = False) -> list[str]:
    """Column names of the CSV output."""
    columns = [
        "AnnotationID",
        "CoordX",
        "CoordY",
        "CoordZ",
        "probability",
        *manifest.member_names,
        "spread",
        "warnings",
    ]
    columns += [*(ATTRIBUTE_PREFIX + name for name in manifest.attributes), ENSEMBLE, TRAINED_ON]
    return columns + ["uncalibrated", "calibration"] * calibrated


def csv_row(prediction: NodulePrediction, manifest: EnsembleManifest, *, calibrated: bool = False) -> list[Any]:
    """One nodule's row of the CSV output."""
    row = [
        prediction.nodule.name,
        *prediction.nodule.point,
        prediction.probability,
        *prediction.member_probabilities,
        prediction.spread,
        "; ".join(prediction.warnings),
        *prediction.attributes,
        manifest.sha256,
        manifest.trained_on,
    ]
    if not calibrated:
        return row
    return [*row, uncalibrated(prediction, manifest), describe_calibration(manifest.calibration_map)]


def further_cells(prediction: NodulePrediction) -> dict[str, Any]:
    """Return the columns of measurements, risk models and growth that were asked for; empty if not known."""
    measured = {} if prediction.measurements is None else asdict(prediction.measurements)
    growth = {} if prediction.growth is None else asdict(prediction.growth)
    risk = prediction.risk or {}
    results = {name: found.get("probability", found.get("category")) for name, found in risk.items()}
    missing = [f"{name}: {', '.join(found['missing'])}" for name, found in risk.items() if "missing" in found]
    return measured | results | ({RISK_MISSING: "; ".join(missing)} if risk else {}) | growth


def _further_words(prediction: NodulePrediction) -> dict[str, str]:
    """Return the table's cells for measurements, risk models and growth, by column; "-" if not known."""
    words = {}
    if (found := prediction.measurements) is not None:
        is_there = found.volume_mm3 is not None
        words[f"{'axes mm':>11}"] = f"{found.long_axis_mm:.1f} x {found.short_axis_mm:.1f}" if is_there else "-"
        words[f"{'mm³':>7}"] = f"{found.volume_mm3:.0f}" if is_there else "-"
    if prediction.risk is not None:
        for head, name in (("Brock", "brock_full"), ("Mayo", "mayo"), ("Herder", "herder")):
            value = prediction.risk[name].get("probability")
            words[f"{head:>6}"] = "-" if value is None else f"{value:.4f}"
        words["Lung-RADS"] = prediction.risk[LUNG_RADS].get("category", "-")
    if prediction.growth is not None:
        change, doubling = prediction.growth.volume_change_percent, prediction.growth.volume_doubling_time_days
        words[f"{'change %':>8}"] = "-" if change is None else f"{change:+.0f}"
        words[f"{'doubling d':>10}"] = "-" if doubling is None else f"{doubling:.0f}"
    return words


def table(predictions: Sequence[NodulePrediction], manifest: EnsembleManifest, *, calibrated: bool = False) -> str:
    """Return a short table for people, with attributes and calibration, if any, the ensemble and its origin below."""
    names = [printable(prediction.nodule.name or str(k)) for k, prediction in enumerate(predictions, start=1)]
    width = max(map(len, ["nodule", *names]))
    columns = ["probability", *["uncalibrated"] * calibrated, *(f"{name:>9}" for name in manifest.member_names)]
    further = [_further_words(prediction) for prediction in predictions]
    lines = ["  ".join([f"{'nodule':<{width}}", *columns, *(further[0] if further else ())])]
    for name, prediction, own in zip(names, predictions, further, strict=True):
        before = [uncalibrated(prediction, manifest)] if calibrated else []
        values = zip(columns, (prediction.probability, *before, *prediction.member_probabilities), strict=True)
        numbers = (f"{value:{len(column)}.4f}" for column, value in values)
        lines.append("  ".join([f"{name:<{width}}", *numbers, *(f"{word:>{len(head)}}" for head, word in own.items())]))
    lines += _attribute_lines(predictions, manifest, names, width) if any(p.attributes for p in predictions) else []
    said = [f"calibrated: {describe_calibration(manifest.calibration_map)}"] if calibrated else []
    return "\n".join([*lines, *said, f"ensemble: {named(manifest.identity)}", manifest.origin])


def _attribute_lines(
    predictions: Sequence[NodulePrediction], manifest: EnsembleManifest, names: Sequence[str], width: int
) -> list[str]:
    columns = manifest.attributes
    lines = ["", "as radiologists would rate (1 to 5, calcification 1 to 6: absent)"]
    lines.append("  ".join([f"{'nodule':<{width}}", *columns]))
    for name, prediction in zip(names, predictions, strict=True):
        told = zip(columns, prediction.attributes, strict=True)
        lines.append("  ".join([f"{name:<{width}}", *(f"{value:{len(column)}.1f}" for column, value in told)]))
    return [*lines, ""]
