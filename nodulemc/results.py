"""Detailed results of one CT: the platform's points plus each seed's probability, their spread and warnings."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodulemc.case import platform_json
from nodulemc.csv_files import write_csv_atomically
from nodulemc.errors import CaseError, ConfigError, printable
from nodulemc.json_files import prepare_output, write_json_atomically
from nodulemc.manifest import Manifest
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


def write_results(path: Path, predictions: Sequence[NodulePrediction], manifest: Manifest) -> None:
    """Write predictions as JSON or CSV, by the path's suffix, atomically.

    Raises:
        CaseError: the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        write_json_atomically(path, detailed_json(predictions, manifest), CaseError)
    else:
        write_csv_atomically(path, [csv_header(manifest), *map(csv_row, predictions)], CaseError)


def detailed_json(predictions: Sequence[NodulePrediction], manifest: Manifest) -> dict[str, Any]:
    """The platform's output with ``per_seed``, ``spread`` and ``warnings`` in each point, and the weights' origin."""
    content = platform_json(predictions)
    for point, prediction in zip(content["points"], predictions, strict=True):
        point["per_seed"] = dict(zip(manifest.seed_names, prediction.per_seed, strict=True))
        point["spread"] = prediction.spread
        point["warnings"] = list(prediction.warnings)
    return content | {"trained_on": manifest.trained_on}


def csv_header(manifest: Manifest) -> list[str]:
    """Column names of the CSV output."""
    return [
        "AnnotationID", "CoordX", "CoordY", "CoordZ", "probability", *manifest.seed_names, "spread", "warnings"
    ]  # fmt: skip


def csv_row(prediction: NodulePrediction) -> list[Any]:
    """One nodule's row of the CSV output."""
    return [
        prediction.nodule.name,
        *prediction.nodule.point,
        prediction.probability,
        *prediction.per_seed,
        prediction.spread,
        "; ".join(prediction.warnings),
    ]


def table(predictions: Sequence[NodulePrediction], manifest: Manifest) -> str:
    """A short table for people, with the weights' origin beneath it."""
    names = [printable(prediction.nodule.name or str(k)) for k, prediction in enumerate(predictions, start=1)]
    width = max(map(len, ["nodule", *names]))
    lines = [f"{'nodule':<{width}}  probability  " + "  ".join(f"{seed:>9}" for seed in manifest.seed_names)]
    for name, prediction in zip(names, predictions, strict=True):
        per_seed = "  ".join(f"{p:9.4f}" for p in prediction.per_seed)
        lines.append(f"{name:<{width}}  {prediction.probability:11.4f}  {per_seed}")
    return "\n".join([*lines, manifest.origin])
