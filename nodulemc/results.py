"""Detailed results of one CT: the platform's points plus each seed's probability, their spread and warnings.

Calibrated results say so: by which method, for which prevalence, and what the vote was before.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodulemc.calibration_map import PREVALENCES, describe_calibration
from nodulemc.case import platform_json
from nodulemc.columns import ATTRIBUTE_PREFIX
from nodulemc.csv_files import write_csv_atomically
from nodulemc.errors import CaseError, ConfigError, printable
from nodulemc.json_files import prepare_output, write_json_atomically
from nodulemc.manifest import Manifest, named
from nodulemc.prediction import NodulePrediction

OUTPUT_SUFFIXES = (".json", ".csv")


def clear_output(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse an unusable output path before any work is done, make its folder, and remove an earlier run's output.

    Raises:
        ConfigError: the suffix is neither .json nor .csv, or the file is one of the inputs.
        CaseError: the folder cannot be made or written, or the earlier output cannot be removed.
    """
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise ConfigError("unknown output type", path, "name a .json or .csv file")
    if any(os.path.realpath(path) == os.path.realpath(given) for given in inputs):
        raise ConfigError("the output is an input, too", path, "name another file")
    prepare_output(path, CaseError)


def write_results(
    path: Path, predictions: Sequence[NodulePrediction], manifest: Manifest, *, calibrated: bool = False
) -> None:
    """Write predictions as JSON or CSV, by the path's suffix, atomically.

    Args:
        path: .json or .csv file.
        predictions: of one CT.
        manifest: the ensemble's.
        calibrated: whether its calibration was applied.

    Raises:
        CaseError: the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        write_json_atomically(path, detailed_json(predictions, manifest, calibrated=calibrated), CaseError)
    else:
        rows = (csv_row(prediction, manifest, calibrated=calibrated) for prediction in predictions)
        write_csv_atomically(path, [csv_header(manifest, calibrated=calibrated), *rows], CaseError)


def detailed_json(
    predictions: Sequence[NodulePrediction], manifest: Manifest, *, calibrated: bool = False
) -> dict[str, Any]:
    """The platform's output with ``per_seed``, ``spread`` and ``warnings`` in each point, and the ensemble.

    Of an ensemble that tells them, points have ``attributes``, too: readers' ratings by name, on their scale.
    Calibrated points have ``uncalibrated``, too, and the whole has the map's method and prevalences as ``calibration``.
    """
    content = platform_json(predictions)
    for point, prediction in zip(content["points"], predictions, strict=True):
        point["per_seed"] = dict(zip(manifest.seed_names, prediction.per_seed, strict=True))
        point["spread"] = prediction.spread
        point["warnings"] = list(prediction.warnings)
        if manifest.attributes:
            point["attributes"] = dict(zip(manifest.attributes, prediction.attributes, strict=True))
        if calibrated:
            point["uncalibrated"] = uncalibrated(prediction, manifest)
    if calibrated:
        content["calibration"] = {name: manifest.calibration[name] for name in ("method", *PREVALENCES)}
    return content | {"ensemble": manifest.identity, "trained_on": manifest.trained_on}


def uncalibrated(prediction: NodulePrediction, manifest: Manifest) -> float:
    """The vote of a prediction's seeds before calibration."""
    return float(prediction.per_seed @ manifest.vote_weights)


def csv_header(manifest: Manifest, *, calibrated: bool = False) -> list[str]:
    """Column names of the CSV output."""
    columns = ["AnnotationID", "CoordX", "CoordY", "CoordZ", "probability", *manifest.seed_names, "spread", "warnings"]
    columns += [ATTRIBUTE_PREFIX + name for name in manifest.attributes]
    return columns + ["uncalibrated", "calibration"] * calibrated


def csv_row(prediction: NodulePrediction, manifest: Manifest, *, calibrated: bool = False) -> list[Any]:
    """One nodule's row of the CSV output."""
    row = [
        prediction.nodule.name,
        *prediction.nodule.point,
        prediction.probability,
        *prediction.per_seed,
        prediction.spread,
        "; ".join(prediction.warnings),
        *prediction.attributes,
    ]
    if not calibrated:
        return row
    return [*row, uncalibrated(prediction, manifest), describe_calibration(manifest.calibration)]


def table(predictions: Sequence[NodulePrediction], manifest: Manifest, *, calibrated: bool = False) -> str:
    """A short table for people; beneath it the calibration, where it was applied, the ensemble and its origin."""
    names = [printable(prediction.nodule.name or str(k)) for k, prediction in enumerate(predictions, start=1)]
    width = max(map(len, ["nodule", *names]))
    columns = ["probability", *["uncalibrated"] * calibrated, *(f"{seed:>9}" for seed in manifest.seed_names)]
    lines = [f"{'nodule':<{width}}  {'  '.join(columns)}"]
    for name, prediction in zip(names, predictions, strict=True):
        before = [uncalibrated(prediction, manifest)] if calibrated else []
        values = zip(columns, (prediction.probability, *before, *prediction.per_seed), strict=True)
        lines.append("  ".join([f"{name:<{width}}", *(f"{value:{len(column)}.4f}" for column, value in values)]))
    said = [f"calibrated: {describe_calibration(manifest.calibration)}"] if calibrated else []
    return "\n".join([*lines, *said, f"ensemble: {named(manifest.identity)}", manifest.origin])
