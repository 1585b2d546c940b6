"""A cohort's scans from a manifest (CSV or Parquet) or a folder in LUNA25's layout.

What makes the whole manifest unusable is an error. What spoils one scan becomes that scan's fault, and the others go
on.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from nodulemc.cohort.names import annotation_id
from nodulemc.cohort.scan import Scan
from nodulemc.errors import NoduleMCError, PointsError, TableError, printable
from nodulemc.evaluation.csv_rows import CsvRow, read_rows
from nodulemc.extras import import_extra
from nodulemc.json_files import read_limited
from nodulemc.labels import LABELS
from nodulemc.limits import MAX_NODULES, MAX_TABLE_BYTES
from nodulemc.plain_numbers import plain_number
from nodulemc.points import Nodule, make_nodule, shortened

TABLE_NAME = "table.csv"
_CT_FOLDER = "ct"
_UID = "SeriesInstanceUID"
_PATHS = ("ct", "path", "scan")
_COORDINATES = (("CoordX", "CoordY", "CoordZ"), ("x", "y", "z"))
_NAMES = ("AnnotationID", "name")
_POINTS = "points"
_LABEL = "label"
_REMEDY = (
    f"give the scans' paths in a column {', '.join(_PATHS[:-1])} or {_PATHS[-1]}, and either one row per nodule with "
    f"CoordX, CoordY, CoordZ or x, y, z in mm, or one row per scan with a column {_POINTS} that names a points file"
)


@dataclass(frozen=True)
class _Columns:
    """Which of the possible columns a manifest has; ``coordinates`` is empty where it names points files."""

    path: str
    coordinates: tuple[str, ...]
    name: str | None

    @classmethod
    def of(cls, found: Sequence[str], where: Path) -> "_Columns":
        paths = [column for column in _PATHS if column in found]
        coordinates = [columns for columns in _COORDINATES if set(columns) <= set(found)]
        sources = len(coordinates) + (_POINTS in found)
        if len(paths) != 1 or sources != 1:
            kind = "missing" if not paths or not sources else "ambiguous"
            raise TableError(f"columns are {kind}; found {', '.join(found)}", where, _REMEDY)
        return cls(paths[0], coordinates[0] if coordinates else (), next((c for c in _NAMES if c in found), None))


def read_listing(path: str | Path) -> list[Scan]:
    """Read the scans of a manifest or folder, in its order, with absolute paths.

    Paths in a manifest are absolute or relative to the manifest's folder. A folder holds ``table.csv``, with LUNA25's
    columns, and ``ct/<SeriesInstanceUID>.mha``.

    Raises:
        TableError: the manifest or table is unreadable, has no rows, or its columns are missing or ambiguous.
        ConfigError: a Parquet file is given and pyarrow is not installed.
    """
    path = Path(path).absolute()  # a cluster's nodes have other working folders
    if path.is_dir():
        rows = read_rows(path / TABLE_NAME, (_UID, *_COORDINATES[0]))
        columns = _Columns(_UID, _COORDINATES[0], _NAMES[0] if _NAMES[0] in rows[0].cells else None)
        return _by_nodule(rows, columns, lambda uid: f"{_CT_FOLDER}/{uid}.mha", path)
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else read_rows(path, ())
    columns = _Columns.of(list(rows[0].cells), path)
    if columns.coordinates:
        return _by_nodule(rows, columns, str, path.parent)
    return _by_scan(rows, columns, path.parent)


def _parquet_rows(path: Path) -> list[CsvRow]:
    """A Parquet file's rows with their values as text, numbered from 1; missing values are empty."""
    parquet = import_extra("pyarrow.parquet", "cohort")
    content = io.BytesIO(read_limited(path, MAX_TABLE_BYTES, TableError))
    try:
        rows = parquet.read_table(content).to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:  # Arrow's own are of these kinds
        raise TableError(f"cannot read the table ({error})", path, "give a Parquet or UTF-8 CSV file") from error
    if not rows:
        raise TableError("the table has no rows", path, "give one row per nodule or scan")
    return [CsvRow(path, k, {name: _text(value) for name, value in row.items()}) for k, row in enumerate(rows, start=1)]


def _text(value: object) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _by_scan(rows: Sequence[CsvRow], columns: _Columns, base: Path) -> list[Scan]:
    first: dict[str, CsvRow] = {}
    scans = []
    for row in rows:
        cell, points = row.cells[columns.path], row.cells[_POINTS]
        name, labels, fault = _name(cell), None, None
        try:
            _check_path(cell, "path", row)
            _check_path(points, "points file", row)
            labels = _label(row)
            earlier = first.setdefault(os.path.realpath(base / cell), row)
            if earlier is not row:
                raise TableError("the scan is listed twice", row.where, f"line {earlier.line} has it, too; remove one")
        except NoduleMCError as error:
            # A faulty row must not take the name of a good one.
            name, fault = _name_of_row(cell, row), error
        scans.append(Scan(name, base / cell, base / points, labels, fault))
    return scans


def _by_nodule(rows: Sequence[CsvRow], columns: _Columns, path_of: Callable[[str], str], base: Path) -> list[Scan]:
    groups: dict[str, list[CsvRow]] = {}
    for row in rows:
        cell = row.cells[columns.path]
        # Rows without a path belong to nothing.
        key = os.path.realpath(base / path_of(cell)) if _is_path(cell) else f"\0{row.line}"
        groups.setdefault(key, []).append(row)
    first: dict[str, CsvRow] = {}
    scans = []
    for group in groups.values():
        cell = group[0].cells[columns.path]
        name = _name(path_of(cell)) if _is_path(cell) else _name_of_row(cell, group[0])
        nodules: list[Nodule] = []
        labels: list[int | None] = []
        fault = None
        try:
            _check_path(cell, "path", group[0])
            if len(group) > MAX_NODULES:
                raise PointsError(f"{len(group)} nodules", group[0].where, f"give at most {MAX_NODULES} per scan")
            for row in group:
                nodules.append(_nodule(row, columns, len(nodules) + 1))
                labels.append(_label(row))
            _check_apart(nodules, group)
            _claim(name, nodules, group, first)
        except NoduleMCError as error:
            nodules, labels, fault = [], [], error
        scans.append(Scan(name, base / path_of(cell), tuple(nodules), tuple(labels), fault))
    return scans


def _check_apart(nodules: Sequence[Nodule], rows: Sequence[CsvRow]) -> None:
    """Refuse a point that two rows have, unless both name their nodules: one of the two is a mistake."""
    first: dict[tuple[float, float, float], int] = {}
    for k, nodule in enumerate(nodules):
        earlier = first.setdefault(nodule.point, k)
        if earlier != k and not (nodule.name and nodules[earlier].name):
            raise PointsError(
                "the nodule is listed twice", rows[k].where, f"line {rows[earlier].line} has its point, too; remove one"
            )


def _claim(scan: str, nodules: Sequence[Nodule], rows: Sequence[CsvRow], first: dict[str, CsvRow]) -> None:
    """Give a scan its nodules' AnnotationIDs, if none of them is taken.

    Raises:
        TableError: one is taken.
    """
    own: dict[str, CsvRow] = {}
    for number, (nodule, row) in enumerate(zip(nodules, rows, strict=True), start=1):
        name = annotation_id(scan, number, nodule.name)
        earlier = first.get(name) or own.setdefault(name, row)
        if earlier is not row:
            raise TableError(
                f"duplicate AnnotationID {shortened(name)}",
                row.where,
                f"line {earlier.line} has it, too; list each nodule once",
            )
    first.update(own)


def _nodule(row: CsvRow, columns: _Columns, position: int) -> Nodule:
    cells = [row.cells[column] for column in columns.coordinates]
    point = [cell if (number := plain_number(cell)) is None else number for cell in cells]
    name = row.cells[columns.name] if columns.name else ""
    return make_nodule(name or None, point, position, row.where)


def _label(row: CsvRow) -> int | None:
    cell = row.cells.get(_LABEL, "")
    if cell and cell not in LABELS:
        raise TableError(f"label is {shortened(cell)}", row.where, "write 0 (benign), 1 (malignant) or nothing")
    return LABELS.get(cell)


def _name(path: str) -> str:
    """A scan's name, the same for ``ct/a.mha`` and ``./ct//a.mha``."""
    return str(PurePath(path))


def _name_of_row(cell: str, row: CsvRow) -> str:
    return f"{printable(cell)} (line {row.line})".lstrip()


def _is_path(cell: str) -> bool:
    try:
        return b"\0" not in os.fsencode(cell) and cell != ""
    except UnicodeEncodeError:
        return False


def _check_path(cell: str, what: str, row: CsvRow) -> None:
    if not cell:
        raise TableError(f"no {what}", row.where, "fill the cell or remove the row")
    if not _is_path(cell):
        raise TableError(f"the {what} is {shortened(cell)}", row.where, "give a path that the system can have")
