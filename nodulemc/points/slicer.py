"""3D Slicer's point lists: markups in JSON, and the older ``.fcsv``.

Every placed point is a nodule, hidden, locked and unselected ones, too, because Slicer loads them all. Sources: Markups
schema 1.0 and vtkMRMLMarkupsFiducialStorageNode (https://github.com/Slicer/Slicer).
"""

import csv
import io
import re
from pathlib import Path
from typing import Any

from nodulemc.errors import PointsError
from nodulemc.limits import MAX_TABLE_BYTES
from nodulemc.points.nodules import Nodule, check_count, make_nodule, shortened
from nodulemc.util.files import read_limited
from nodulemc.util.text import counted, plain_number

# Slicer has written the numbers of its enumeration, too.
_SYSTEMS = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}
_STATEMENT = re.compile(r"#\s*(CoordinateSystem|columns)\s*=\s*(.*)")
_FCSV = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_FLAGS, _LABEL, _STATUS = slice(8, 11), 11, 14
_DEFINED = "2"
_UNDEFINED = "place it or delete it"


def from_markups(content: Any, path: Path) -> list[Nodule]:
    """Return the nodules of a markups file's JSON content, with LPS or RAS positions.

    Raises:
        PointsError: the content is no point list in mm, is too long, or a point has no defined position.
    """
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise PointsError("no list of markups", path, "save a point list from 3D Slicer as .mrk.json")
    nodules: list[Nodule] = []
    for markup in markups:
        kind = markup.get("type", "Fiducial")
        units = markup.get("coordinateUnits", "mm")
        stated = markup.get("coordinateSystem", "LPS")
        system = _SYSTEMS.get(str(stated))
        if kind != "Fiducial" or units not in ("mm", ["mm", "mm", "mm"]) or system is None:
            raise PointsError(
                f"a markup of type {shortened(kind)} in {shortened(units)}, {shortened(stated)}",
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
                    _UNDEFINED,
                )
            nodule = make_nodule(entry.get("label") or None, entry.get("position"), len(nodules) + 1, path)
            nodules.append(_in_lps(nodule, system))
    check_count(nodules, path)
    return nodules


def read_fcsv(path: Path) -> list[Nodule]:
    """Read a ``.fcsv`` file, with LPS or RAS positions.

    Raises:
        FileError: the file cannot be read.
        PointsError: it states no coordinate system or other columns, is too long, or a line is
            not a point with a defined position.
    """
    stated: dict[str, set[str]] = {"CoordinateSystem": set(), "columns": set()}
    lines = []
    for number, line in enumerate(_lines(path), start=1):
        if statement := _STATEMENT.match(line):
            stated[statement[1]].add(statement[2].strip())
        elif line.strip() and not line.startswith("#"):
            lines.append((number, line))
    system = _stated_system(stated["CoordinateSystem"], path)
    if stated["columns"] - {_FCSV}:
        raise PointsError(
            f"the columns are {shortened(', '.join(stated['columns']))}", path, f"expected {_FCSV}, as 3D Slicer has"
        )
    check_count(lines, path)
    return [_in_lps(_fcsv_point(line, k, f"{path}, line {n}"), system) for k, (n, line) in enumerate(lines, start=1)]


def _lines(path: Path) -> io.StringIO:
    try:
        text = read_limited(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PointsError(f"cannot read the points ({error})", path, "save them from 3D Slicer again") from error
    return io.StringIO(text, newline=None)


def _stated_system(stated: set[str], path: Path) -> str:
    systems = {_SYSTEMS.get(system, "") for system in stated}
    if len(systems) != 1 or "" in systems:
        found = shortened(", ".join(sorted(stated))) if stated else "not stated"
        remedy = "give a line '# CoordinateSystem = LPS' or '# CoordinateSystem = RAS', whichever it is"
        raise PointsError(f"the coordinate system is {found}", path, remedy)
    return systems.pop()


def _fcsv_point(line: str, position: int, where: str) -> Nodule:
    """Return one line's nodule in the file's coordinates. Slicer 5 writes a point's state after the named columns."""
    try:
        (cells,) = csv.reader([line.rstrip("\n")], strict=True)
    except csv.Error as error:
        raise PointsError(f"cannot read the point ({error})", where, "save the points from 3D Slicer again") from error
    columns = _FCSV.count(",") + 1
    status, automatic = cells[_STATUS:] if len(cells) == columns + 2 else (_DEFINED, "0")
    is_point = len(cells) in (columns, columns + 2) and {*cells[_FLAGS], automatic} <= {"0", "1"}
    if not is_point or status not in ("0", "1", _DEFINED, "3"):
        remedy = f"expected {columns} columns, numbers with decimal points, as 3D Slicer writes them"
        raise PointsError(f"no point in {counted(len(cells), 'cell')}", where, remedy)
    if status != _DEFINED:
        raise PointsError(f"point {position} has no defined position", where, _UNDEFINED)
    point = [text if (number := plain_number(text)) is None else number for text in cells[1:4]]
    return make_nodule(cells[_LABEL].strip() or None, point, position, where)


def _in_lps(nodule: Nodule, system: str) -> Nodule:
    x, y, z = nodule.point
    return nodule if system == "LPS" else Nodule(nodule.name, (-x, -y, z))
