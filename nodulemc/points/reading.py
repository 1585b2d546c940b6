"""Reading nodules from Grand-Challenge's JSON, a table, 3D Slicer's point lists or a segmentation."""

import logging
import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from nodulemc.columns import ANNOTATION, COORDINATES, PATHS, UID, canonical, two_points
from nodulemc.ct.volume import Volume
from nodulemc.errors import PointsError
from nodulemc.limits import MAX_NODULES
from nodulemc.points import label_image as label_points
from nodulemc.points.nodules import Nodule, check_count, make_nodule, shortened
from nodulemc.points.slicer import from_markups, read_fcsv
from nodulemc.util.csv_files import read_csv
from nodulemc.util.identifiers import restored, spellings
from nodulemc.util.json_files import read_json
from nodulemc.util.text import plain_number

logger = logging.getLogger(__name__)
_REMEDY = f"give {', '.join(COORDINATES)} or x, y, z in mm, LPS, each once"
# A row's line and its cells by column.
_Row = tuple[int, dict[str, str]]


def read_points(path: str | Path, volume: Volume) -> list[Nodule]:
    """Read nodules in the file's order.

    The formats are

    - Grand-Challenge "Multiple points" JSON
    - 3D Slicer's point lists (``.json``, ``.mrk.json``, ``.fcsv``)
    - CSV with coordinates and optional names (see ``nodulemc.columns``). Rows of other scans are left out, by
      SeriesInstanceUID (the CT's file name or its DICOM series) or else by the CT's path. If all rows are about one
      other scan, they are used all the same, with a warning.
    - label images (``nodulemc.points.label_image``): each region's centre of mass
    - DICOM SEGs and RTSTRUCTs (``nodulemc.points.dicom``), as a file or in a folder: each region's centre of mass

    Raises:
        FileError: the file is missing, unreadable, too large or no JSON.
        TableError: it is no table, or a name in it is a number that has lost digits.
        PointsError: it holds no points or too many, a point is not three finite numbers, or a segmentation is
            of another frame of reference than the CT.
    """
    path = Path(path)
    if path.name.lower().endswith(label_points.SUFFIXES):
        return label_points.read_label_image(path, volume)
    readers: dict[str, Callable[[], list[Nodule]]] = {
        ".json": lambda: _from_json(read_json(path), path),
        ".fcsv": lambda: read_fcsv(path),
        ".csv": lambda: _from_csv(path, volume),
    }
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()]()
    from nodulemc.points.dicom import read_dicom  # pydicom takes a while to import

    return read_dicom(path, volume)


def _from_json(content: Any, path: Path) -> list[Nodule]:
    keys = content if isinstance(content, dict) else {}
    if "markups" in keys and "points" in keys:
        raise PointsError("both points and markups", path, "give Grand-Challenge's points or 3D Slicer's markups")
    is_slicers = "markups" in keys or path.name.lower().endswith(".mrk.json")
    return from_markups(content, path) if is_slicers else from_grand_challenge(content, path)


def from_grand_challenge(content: Any, source: object) -> list[Nodule]:
    """Return the nodules of Grand-Challenge's "Multiple points" JSON content.

    Raises:
        PointsError: the content is not such a list, is too long, or a point is not three finite numbers.
    """
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list):
        raise PointsError("no list of points", source, 'expected {"type": "Multiple points", "points": [...]}')
    check_count(points, source)
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


def _from_csv(path: Path, volume: Volume) -> list[Nodule]:
    header, cells = read_csv(path)
    columns = canonical(header)
    if missing := [column for column in COORDINATES if column not in columns]:
        raise PointsError(f"columns missing: {', '.join(missing)}; found {', '.join(header) or 'none'}", path, _REMEDY)
    used = (*COORDINATES, ANNOTATION, UID, *PATHS)
    if repeated := [column for column in used if columns.count(column) > 1]:
        raise PointsError(f"columns repeated: {', '.join(repeated)}; found {', '.join(header)}", path, _REMEDY)
    if two_points(columns):
        raise PointsError(f"columns are ambiguous; found {', '.join(header)}", path, _REMEDY)
    rows: Iterable[tuple[int, dict[str, str]]] = ((line, dict(zip(columns, row, strict=True))) for line, row in cells)
    scan = next((column for column in (UID, *PATHS) if column in columns), None)
    if scan:
        rows = _rows_of_scan(rows, scan, volume, path)
    numbered = list(islice(rows, MAX_NODULES + 1))
    check_count(numbered, path)
    places = [f"{path}, line {line}" for line, _ in numbered]
    names = restored(ANNOTATION, [row.get(ANNOTATION, "") for _, row in numbered], places.__getitem__)
    nodules = []
    for (line, row), name, place in zip(numbered, names, places, strict=True):
        point = [
            text if (number := plain_number(text)) is None else number for text in map(row.__getitem__, COORDINATES)
        ]
        nodules.append(make_nodule(name or None, point, line, place))
    return nodules


def _rows_of_scan(rows: Iterable[_Row], column: str, volume: Volume, path: Path) -> list[_Row]:
    """Return the rows of this scan; if they exceed a scan's limit, only enough to show it."""
    is_ours, ours = _this_scan(column, volume, path)
    matching: list[_Row] = []
    others: list[_Row] = []
    other_scans: set[str] = set()
    for line, row in rows:
        if is_ours(row[column]):
            matching.append((line, row))
            if len(matching) > MAX_NODULES:
                break
        else:
            # However long the table, what is kept of other scans is short.
            if len(others) <= MAX_NODULES:
                others.append((line, row))
            if len(other_scans) < 2:
                other_scans.add(row[column])
    if matching or not others:
        return matching
    if len(other_scans) > 1:
        raise PointsError(
            f"no row has the {column} {ours}",
            path,
            f"name the CT by its {column}, or give a table of this scan's rows only",
        )
    logger.warning(
        "%s: its one %s %s is not the CT's (%s); all its rows are scored",
        path,
        column,
        shortened(others[0][1][column]),
        ours,
    )
    return others


def _this_scan(column: str, volume: Volume, path: Path) -> tuple[Callable[[str], bool], object]:
    """Return a function that tells whether a cell of the column means this scan, and the scan's name there."""
    source = volume.source
    if column == UID:
        known = {volume.series_uid, source.name, *spellings(scan_name(source))}
        return known.__contains__, volume.series_uid or scan_name(source)
    base, place = path.absolute().parent, os.path.normpath(source.absolute())
    # Most cells of other scans end otherwise, which is quickly seen.
    return lambda cell: cell.endswith(source.name) and os.path.normpath(base / cell) == place, source


def scan_name(path: Path) -> str:
    """Return a CT's file name without its suffix; Path.stem would cut SeriesInstanceUIDs, which contain dots."""
    name = path.name
    for suffix in (".gz", ".mha", ".mhd", ".nii", ".nrrd", ".tiff", ".tif"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name
