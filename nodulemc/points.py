"""Nodule coordinates from the platform's JSON, a LUNA25 table or 3D Slicer markups."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nodulemc.csv_files import read_csv
from nodulemc.errors import PointsError
from nodulemc.json_files import read_json
from nodulemc.limits import MAX_NAME_LENGTH, MAX_NODULES
from nodulemc.plain_numbers import plain_number
from nodulemc.volume import Volume

logger = logging.getLogger(__name__)
_CSV_COLUMNS = ("AnnotationID", "CoordX", "CoordY", "CoordZ")
# A row's line and its cells by column.
_Row = tuple[int, dict[str, str]]


@dataclass(frozen=True)
class Nodule:
    """A nodule's name, None where its file gives none, and its point x, y, z in mm (LPS)."""

    name: str | None
    point: tuple[float, float, float]


def read_points(path: str | Path, volume: Volume) -> list[Nodule]:
    """Read nodules in the file's order.

    Formats: Grand-Challenge "Multiple points" JSON; CSV with LUNA25's columns, where rows of other scans
    are left out by SeriesInstanceUID (the CT's file name or its DICOM series; a table of one single scan
    is taken whole, with a warning, where the two differ); 3D Slicer ``.mrk.json``
    (https://github.com/Slicer/Slicer, Markups schema 1.0), with LPS or RAS positions.

    Raises:
        PointsError: the file cannot be used, holds too many nodules, or a point is not three finite numbers.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".mrk.json"):
        return _from_slicer(read_json(path, PointsError), path)
    if name.endswith(".json"):
        return from_platform(read_json(path, PointsError), path)
    if name.endswith(".csv"):
        return _from_csv(path, volume)
    raise PointsError("unknown points file type", path, "use .json, .mrk.json or .csv")


def make_nodule(name: Any, point: Any, position: int, source: object) -> Nodule:
    """Check one nodule; ``position`` counts from 1 and stands in for a missing name in messages.

    Raises:
        PointsError: the name is no text or too long, or the point is not three finite numbers.
    """
    if not (name is None or (isinstance(name, str) and len(name) <= MAX_NAME_LENGTH)):
        raise PointsError(
            f"the name of nodule {position} is {shortened(name)}",
            source,
            f"give a text of at most {MAX_NAME_LENGTH} characters",
        )
    is_point = (
        isinstance(point, Sequence)
        and len(point) == 3
        and all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in point)
    )
    # An integer too large for a float is no coordinate either.
    if not is_point or not all(abs(c) < 1e9 and math.isfinite(c) for c in point):
        raise PointsError(
            f"the point of nodule {shortened(name or position)} is {shortened(point)}",
            source,
            "give three finite numbers: x, y, z in mm",
        )
    return Nodule(name, tuple(point))


def from_platform(content: Any, source: object) -> list[Nodule]:
    """Nodules of the platform's "Multiple points" JSON content.

    Raises:
        PointsError: the content is not such a list, is too long, or a point is not three finite numbers.
    """
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise PointsError("no list of points", source, 'expected {"type": "Multiple points", "points": [...]}')
    _check_count(points, source)
    nodules = []
    for position, entry in enumerate(points, start=1):
        if not isinstance(entry, dict):
            raise PointsError(
                f"point {position} is {shortened(entry)}",
                source,
                'expected {"name": "...", "point": [x, y, z]}',
            )
        nodules.append(make_nodule(entry.get("name"), entry.get("point"), position, source))
    return nodules


def shortened(value: Any) -> str:
    """A value as it may stand in a message, control characters escaped."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_count(nodules: Sequence[Any], source: object) -> None:
    if len(nodules) > MAX_NODULES:
        raise PointsError(f"more than {MAX_NODULES} nodules", source, f"give at most {MAX_NODULES} per scan")


def _from_csv(path: Path, volume: Volume) -> list[Nodule]:
    columns, cells = read_csv(path, PointsError)
    for what, wrong in (
        ("missing", [column for column in _CSV_COLUMNS if column not in columns]),
        ("repeated", [column for column in (*_CSV_COLUMNS, "SeriesInstanceUID") if columns.count(column) > 1]),
    ):
        if wrong:
            raise PointsError(f"columns {what}: {', '.join(wrong)}", path, f"give {', '.join(_CSV_COLUMNS)}, each once")
    rows = ((line, dict(zip(columns, row, strict=True))) for line, row in cells)
    if "SeriesInstanceUID" in columns:
        rows = _rows_of_scan(rows, volume, path)
    numbered = list(islice(rows, MAX_NODULES + 1))
    _check_count(numbered, path)
    nodules = []
    for line, row in numbered:
        texts = [row[column] for column in _CSV_COLUMNS[1:]]
        point = [text if (number := plain_number(text)) is None else number for text in texts]
        nodules.append(make_nodule(row["AnnotationID"], point, line, f"{path}, line {line}"))
    return nodules


def _rows_of_scan(rows: Iterable[_Row], volume: Volume, path: Path) -> list[_Row]:
    """The rows of this scan; where they are more than a scan may have, only so many that it shows."""
    known = {volume.series_uid, volume.source.name, scan_name(volume.source)}
    matching: list[_Row] = []
    others: list[_Row] = []
    other_uids: set[str] = set()
    for line, row in rows:
        uid = row["SeriesInstanceUID"]
        if uid in known:
            matching.append((line, row))
            if len(matching) > MAX_NODULES:
                break
        else:
            # However long the table, what is kept of other scans is short.
            if len(others) <= MAX_NODULES:
                others.append((line, row))
            if len(other_uids) < 2:
                other_uids.add(uid)
    if matching or not others:
        return matching
    named = volume.series_uid or scan_name(volume.source)
    if len(other_uids) > 1:
        raise PointsError(
            f"no row has the SeriesInstanceUID {named}",
            path,
            "name the CT file by its SeriesInstanceUID, or give a table of this scan's rows only",
        )
    logger.warning(
        "%s: its one SeriesInstanceUID %s is not the CT's (%s); all its rows are scored",
        path,
        shortened(others[0][1]["SeriesInstanceUID"]),
        named,
    )
    return others


def scan_name(path: Path) -> str:
    """A CT's file name without its suffix; SeriesInstanceUIDs contain dots, so Path.stem does not do."""
    name = path.name
    for suffix in (".gz", ".mha", ".mhd", ".nii", ".nrrd", ".tiff", ".tif"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _from_slicer(content: Any, path: Path) -> list[Nodule]:
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise PointsError("no list of markups", path, "save a point list from 3D Slicer as .mrk.json")
    nodules: list[Nodule] = []
    for markup in markups:
        kind = markup.get("type", "Fiducial")
        units = markup.get("coordinateUnits", "mm")
        system = markup.get("coordinateSystem", "LPS")
        # Slicer's first markups files hold the numbers of its enumeration.
        system = {"0": "RAS", "1": "LPS"}.get(str(system), system)
        if kind != "Fiducial" or units not in ("mm", ["mm", "mm", "mm"]) or system not in ("LPS", "RAS"):
            raise PointsError(
                f"a markup of type {shortened(kind)} in {shortened(units)}, {shortened(system)}",
                path,
                "give a point list in mm, LPS or RAS",
            )
        control_points = markup.get("controlPoints", [])
        if not isinstance(control_points, list):
            raise PointsError("controlPoints is no list", path, "save the point list from 3D Slicer again")
        for entry in control_points:
            if not isinstance(entry, dict) or entry.get("positionStatus", "defined") != "defined":
                raise PointsError(
                    f"control point {shortened(entry)} has no defined position",
                    path,
                    "place it or delete it",
                )
            nodule = make_nodule(entry.get("label") or None, entry.get("position"), len(nodules) + 1, path)
            x, y, z = nodule.point
            nodules.append(nodule if system == "LPS" else Nodule(nodule.name, (-x, -y, z)))
    _check_count(nodules, path)
    return nodules
