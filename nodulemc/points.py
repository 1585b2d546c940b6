"""Nodule coordinates from the platform's JSON, a LUNA25 table or 3D Slicer markups."""

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.errors import PointsError
from nodulemc.json_files import read_json
from nodulemc.volume import Volume

logger = logging.getLogger(__name__)
_CSV_COLUMNS = ("AnnotationID", "CoordX", "CoordY", "CoordZ")


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
        PointsError: the file cannot be used, or a nodule's point is not three finite numbers.
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


def make_nodule(name: str | None, point: Any, position: int, source: object) -> Nodule:
    """Check one nodule; ``position`` counts from 1 and stands in for a missing name in messages."""
    is_point = (
        isinstance(point, Sequence)
        and len(point) == 3
        and all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in point)
    )
    # An integer too large for a float is no coordinate either.
    if not is_point or not all(abs(c) < 1e9 and math.isfinite(c) for c in point):
        raise PointsError(
            f"the point of nodule {name or position!r} is {_shortened(point)}",
            source,
            "give three finite numbers: x, y, z in mm",
        )
    return Nodule(name, tuple(point))


def from_platform(content: Any, source: object) -> list[Nodule]:
    """Nodules of the platform's "Multiple points" JSON content.

    Raises:
        PointsError: the content is not such a list, or a point is not three finite numbers.
    """
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise PointsError("no list of points", source, 'expected {"type": "Multiple points", "points": [...]}')
    nodules = []
    for position, entry in enumerate(points, start=1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not (name is None or isinstance(name, str)):
            raise PointsError(
                f"point {position} is {_shortened(entry)}",
                source,
                'expected {"name": "...", "point": [x, y, z]}',
            )
        nodules.append(make_nodule(name, entry.get("point"), position, source))
    return nodules


def _from_csv(path: Path, volume: Volume) -> list[Nodule]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PointsError(f"cannot read the table ({error})", path, "give a UTF-8 CSV file") from error
    missing = [column for column in _CSV_COLUMNS if column not in columns]
    if missing:
        raise PointsError(f"columns missing: {', '.join(missing)}", path, f"give {', '.join(_CSV_COLUMNS)}")
    numbered = list(enumerate(rows, start=2))  # line 1 is the header
    if "SeriesInstanceUID" in columns:
        numbered = _rows_of_scan(numbered, volume, path)
    nodules = []
    for line, row in numbered:
        try:
            point = [float(row[column]) for column in _CSV_COLUMNS[1:]]
        except (TypeError, ValueError):
            point = [row[column] for column in _CSV_COLUMNS[1:]]
        nodules.append(make_nodule(row["AnnotationID"], point, line, f"{path}, line {line}"))
    return nodules


def _rows_of_scan(numbered: list[tuple[int, dict]], volume: Volume, path: Path) -> list[tuple[int, dict]]:
    known = {volume.series_uid, volume.source.name, scan_name(volume.source)}
    matching = [(line, row) for line, row in numbered if row["SeriesInstanceUID"] in known]
    if matching or not numbered:
        return matching
    named = volume.series_uid or scan_name(volume.source)
    if len({row["SeriesInstanceUID"] for _, row in numbered}) > 1:
        raise PointsError(
            f"no row has the SeriesInstanceUID {named}",
            path,
            "name the CT file by its SeriesInstanceUID, or give a table of this scan's rows only",
        )
    logger.warning(
        "%s: its one SeriesInstanceUID %s is not the CT's (%s); all its rows are scored",
        path,
        numbered[0][1]["SeriesInstanceUID"],
        named,
    )
    return numbered


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
                f"a markup of type {kind!r} in {units!r}, {system!r}",
                path,
                "give a point list in mm, LPS or RAS",
            )
        control_points = markup.get("controlPoints", [])
        if not isinstance(control_points, list):
            raise PointsError("controlPoints is no list", path, "save the point list from 3D Slicer again")
        for entry in control_points:
            if not isinstance(entry, dict) or entry.get("positionStatus", "defined") != "defined":
                raise PointsError(
                    f"control point {_shortened(entry)} has no defined position",
                    path,
                    "place it or delete it",
                )
            nodule = make_nodule(entry.get("label") or None, entry.get("position"), len(nodules) + 1, path)
            x, y, z = nodule.point
            nodules.append(nodule if system == "LPS" else Nodule(nodule.name, (-x, -y, z)))
    return nodules


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
