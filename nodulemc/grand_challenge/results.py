"""Grand-Challenge's output JSON for many cases, as an evaluation there finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodulemc.columns import ATTRIBUTE_PREFIX, CALIBRATION, ENSEMBLE, TRAINED_ON
from nodulemc.ensemble.calibration import describe_calibration
from nodulemc.errors import TableError
from nodulemc.output.multiple_points import OUTPUT_NAME
from nodulemc.ratings import ATTRIBUTES, HIGHEST, LOWEST
from nodulemc.util.files import visible
from nodulemc.util.json_files import number, read_json

_JOBS_NAME = "predictions.json"


@dataclass(frozen=True)
class ScoredPoint:
    """The answer for one nodule.

    Attributes:
        name: The nodule's AnnotationID.
        probability: The probability of malignancy, 0…1.
        origin: The ensemble that made it, by the columns of predictions, if the file is from `nodulemc predict`.
        attributes: The predicted ratings, by the columns of predictions, if the file is from `nodulemc predict`.
    """

    name: str
    probability: float
    origin: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


def read_grand_challenge_results(folder: Path) -> list[ScoredPoint]:
    """Read all results in a folder, file by file in the order of their paths.

    The files are those named ``lung-nodule-malginancy-likelihoods.json`` in the folder and below; Grand-Challenge puts
    one into each job's ``output``. If there are none, they are all JSON files directly in the folder, except
    Grand-Challenge's list of jobs, ``predictions.json``.

    Raises:
        FileError: a file cannot be read or is no JSON.
        TableError: there is no result, a file is malformed, a point has no name, or its probability is not in 0…1.
    """
    files = sorted(folder.rglob(OUTPUT_NAME))
    files = files or [path for path in visible(folder.glob("*.json")) if path.name != _JOBS_NAME]
    if not files:
        raise TableError("no results", folder, f"give a folder with {OUTPUT_NAME} in it or below")
    return [point for path in files for point in _points(read_json(path), path)]


def _points(content: Any, path: Path) -> list[ScoredPoint]:
    entries = content.get("points") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise TableError("no list of points", path, 'expected {"type": "Multiple points", "points": [...]}')
    origin = _origin(content)
    return [_point(entry, origin, f"{path}, point {number}") for number, entry in enumerate(entries, start=1)]


def _origin(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the ensemble as `nodulemc predict` states it; other files may hold anything beside points."""
    ensemble, calibration = (content.get(key) for key in (ENSEMBLE, CALIBRATION))
    stated = (
        {ENSEMBLE: ensemble.get("sha256"), TRAINED_ON: content.get(TRAINED_ON)} if isinstance(ensemble, dict) else {}
    )
    if isinstance(calibration, dict) and isinstance(calibration.get("prevalence"), float):
        stated[CALIBRATION] = describe_calibration({"method": "unknown method"} | calibration)
    return {key: text for key, text in stated.items() if isinstance(text, str)}


def _point(entry: Any, origin: Mapping[str, str], where: str) -> ScoredPoint:
    name, value = (entry.get("name"), entry.get("probability")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not name:
        raise TableError(f"name is {name!r}", where, "name each point by its nodule's AnnotationID")
    probability = _number(value, 0, 1)
    if probability is None:
        raise TableError(f"probability is {value!r}", where, "give a number in 0…1")
    # Grand-Challenge's files may hold anything else beside points.
    told = entry.get("attributes") if ENSEMBLE in origin else None
    return ScoredPoint(name, probability, origin, _attributes(told, where) if isinstance(told, dict) else {})


def _attributes(told: Mapping[str, Any], where: str) -> dict[str, str]:
    cells = {}
    for name in filter(told.__contains__, ATTRIBUTES):
        rating = _number(told[name], LOWEST, HIGHEST[name])
        if rating is None:
            raise TableError(f"{name} is {told[name]!r}", where, f"give a number from {LOWEST} to {HIGHEST[name]}")
        cells[ATTRIBUTE_PREFIX + name] = str(rating)
    return cells


def _number(value: Any, lowest: float, highest: float) -> float | None:
    """Return a JSON number within limits, or None for anything else."""
    try:
        found = number(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if lowest <= found <= highest else None
