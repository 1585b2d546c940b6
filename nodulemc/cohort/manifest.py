"""A cohort's scans from a manifest (CSV or Parquet) or a folder in LUNA25's layout.

A fault that makes the whole manifest unusable is an error. A fault of one scan is recorded with it, and the others go
on.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from nodulemc.cohort.names import annotation_id
from nodulemc.cohort.scan import Scan
from nodulemc.columns import ANNOTATION, COORDINATES, LABEL, LABELS, PATHS, PATIENT, POINTS, UID, canonical, two_points
from nodulemc.ct.folder import CT_SUFFIX, CtFolder
from nodulemc.ct.volume import SUFFIXES
from nodulemc.errors import FileError, ImageError, NoduleMCError, PointsError, TableError, printable
from nodulemc.limits import MAX_NODULES
from nodulemc.points.nodules import Nodule, make_nodule, shortened
from nodulemc.util.table_rows import TableRow, read_rows, read_table
from nodulemc.util.text import counted, plain_number

TABLE_NAME = "table.csv"
_CT_FOLDER = "ct"
_REMEDY = (
    f"give the scans' paths in a column {', '.join(PATHS[:-1])} or {PATHS[-1]}, and either one row per nodule with "
    f"{', '.join(COORDINATES)} or x, y, z in mm, or one row per scan with a column {POINTS} that names a points file"
)


def read_cohort_manifest(path: str | Path) -> list[Scan]:
    """Read the scans of a manifest or folder, in its order, with absolute paths.

    Paths in a manifest are absolute or relative to the manifest's folder. A folder holds ``table.csv``, with LUNA25's
    columns, and in ``ct`` the CTs, see ``nodulemc.ct.folder``.

    Raises:
        FileError: the manifest or table cannot be read.
        TableError: it is malformed, has no rows, or its columns are missing or ambiguous.
        ConfigError: a Parquet file is given and pyarrow is not installed.
    """
    path = Path(path).absolute()  # a cluster's nodes have other working folders
    if path.is_dir():
        if not (path / TABLE_NAME).exists():
            what, remedy = f"a folder without {TABLE_NAME}", f"put {TABLE_NAME} beside its folder {_CT_FOLDER}"
            raise FileError(what, path, f"{remedy}, give a table instead, or score one CT with `nodulemc predict`")
        rows = read_rows(path / TABLE_NAME, (UID, *COORDINATES))
        return _by_nodule(rows, UID, _Cts(path).find)
    if path.name.lower().endswith(SUFFIXES):
        raise TableError("a CT, no manifest", path, "score one CT with `nodulemc predict`, or list several in a table")
    header, rows = read_table(path, ())
    column = _path_column(header, path)
    if POINTS in rows[0].cells:
        return _by_scan(rows, column, path.parent)
    return _by_nodule(rows, column, lambda cell: _Ct(_name(cell), path.parent / cell))


@dataclass(frozen=True)
class _Ct:
    """A scan's name and the other values of ``Scan`` about its CT."""

    name: str
    path: Path
    series: str | None = None
    fault: ImageError | None = None


class _Cts:
    """The CTs of a cohort's folder."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._folder = CtFolder(base / _CT_FOLDER)

    def find(self, uid: str) -> _Ct:
        """Return the CT of a series: a file, or a series in a DICOM folder, named by its UID wherever it is."""
        name = _name(f"{_CT_FOLDER}/{uid}")
        try:
            place = self._folder.find(uid)
        except ImageError as error:
            return _Ct(name, self._base / name, fault=error)
        return _Ct(name if place.series else f"{name}{CT_SUFFIX}", place.path, place.series)


def _path_column(header: Sequence[str], where: Path) -> str:
    """Return the column with the scans' paths, if the manifest gives its nodules in one way only."""
    columns = canonical(header)
    paths = [column for column in PATHS if column in columns]
    sources = [POINTS in columns, set(COORDINATES) <= set(columns)]
    if len(paths) != 1 or sum(sources) != 1 or two_points(columns):
        kind = "missing" if not paths or not any(sources) else "ambiguous"
        raise TableError(f"columns are {kind}; found {', '.join(header)}", where, _REMEDY)
    return paths[0]


def _by_scan(rows: Sequence[TableRow], column: str, base: Path) -> list[Scan]:
    first: dict[str, TableRow] = {}
    scans = []
    for row in rows:
        cell, points = row.cells[column], row.cells[POINTS]
        name, labels, patient, fault = _name(cell), None, None, None
        try:
            _check_path(cell, "path", row)
            _check_path(points, "points file", row)
            labels, patient = _label(row), _patient([row])
            earlier = first.setdefault(os.path.realpath(base / cell), row)
            if earlier is not row:
                raise TableError("the scan is listed twice", row.where, f"line {earlier.line} has it, too; remove one")
        except NoduleMCError as error:
            # A faulty row must not take the name of a good one.
            name, fault = _name_of_row(cell, row), error
        scans.append(Scan(name, base / cell, base / points, labels, patient, fault, _uids([row])))
    return scans


def _by_nodule(rows: Sequence[TableRow], column: str, locate: Callable[[str], _Ct]) -> list[Scan]:
    groups: dict[object, tuple[_Ct, list[TableRow]]] = {}
    for row in rows:
        cell = row.cells[column]
        if _is_path(cell):
            ct = locate(cell)
            groups.setdefault((os.path.realpath(ct.path), ct.series), (ct, []))[1].append(row)
        else:  # it belongs to nothing
            groups[row.line] = _Ct(_name_of_row(cell, row), row.path.parent), [row]
    first: dict[str, TableRow] = {}
    scans = []
    for ct, group in groups.values():
        nodules: list[Nodule] = []
        labels: list[int | None] = []
        patient, fault = None, None
        try:
            _check_path(group[0].cells[column], "path", group[0])
            if ct.fault:
                raise ct.fault
            patient = _patient(group)
            if len(group) > MAX_NODULES:
                raise PointsError(counted(len(group), "nodule"), group[0].where, f"give at most {MAX_NODULES} per scan")
            for row in group:
                nodules.append(_nodule(row, len(nodules) + 1))
                labels.append(_label(row))
            _check_apart(nodules, group)
            _claim(ct.name, nodules, group, first)
        except NoduleMCError as error:
            nodules, labels, fault = [], [], error
        uids = _uids(group)
        scans.append(Scan(ct.name, ct.path, tuple(nodules), tuple(labels), patient, fault, uids, ct.series))
    return scans


def _check_apart(nodules: Sequence[Nodule], rows: Sequence[TableRow]) -> None:
    """Refuse a point that two rows share, unless both name their nodules: one of the two is a mistake."""
    first: dict[tuple[float, float, float], int] = {}
    for k, nodule in enumerate(nodules):
        earlier = first.setdefault(nodule.point, k)
        if earlier != k and not (nodule.name and nodules[earlier].name):
            raise PointsError(
                "the nodule is listed twice", rows[k].where, f"line {rows[earlier].line} has its point, too; remove one"
            )


def _claim(scan: str, nodules: Sequence[Nodule], rows: Sequence[TableRow], first: dict[str, TableRow]) -> None:
    """Reserve its nodules' AnnotationIDs for a scan.

    Raises:
        TableError: One is taken already.
    """
    own: dict[str, TableRow] = {}
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


def _nodule(row: TableRow, position: int) -> Nodule:
    cells = [row.cells[column] for column in COORDINATES]
    point = [cell if (number := plain_number(cell)) is None else number for cell in cells]
    return make_nodule(row.cells.get(ANNOTATION) or None, point, position, row.where)


def _label(row: TableRow) -> int | None:
    cell = row.cells.get(LABEL, "")
    if cell and cell not in LABELS:
        raise TableError(f"label is {shortened(cell)}", row.where, "write 0 (benign), 1 (malignant) or nothing")
    return LABELS.get(cell)


def _patient(rows: Sequence[TableRow]) -> str | None:
    """Return the scan's patient, if one of its rows states it.

    Raises:
        TableError: Rows state different patients.
    """
    first = next((row for row in rows if row.cells.get(PATIENT)), None)
    if first is None:
        return None
    for row in rows:
        if row.cells[PATIENT] not in ("", first.cells[PATIENT]):
            what = f"PatientID is {shortened(row.cells[PATIENT])}"
            remedy = f"line {first.line} has {shortened(first.cells[PATIENT])} for the same scan; name one patient"
            raise TableError(what, row.where, remedy)
    return first.cells[PATIENT]


def _uids(rows: Sequence[TableRow]) -> frozenset[str]:
    return frozenset(uid for row in rows if (uid := row.cells.get(UID)))


def _name(path: str) -> str:
    """Return a scan's name, which is the same for ``ct/a.mha`` and ``./ct//a.mha``."""
    return str(PurePath(path))


def _name_of_row(cell: str, row: TableRow) -> str:
    return f"{printable(cell)} (line {row.line})".lstrip()


def _is_path(cell: str) -> bool:
    try:
        return b"\0" not in os.fsencode(cell) and cell != ""
    except UnicodeEncodeError:
        return False


def _check_path(cell: str, what: str, row: TableRow) -> None:
    if not cell:
        raise TableError(f"no {what}", row.where, "fill the cell or remove the row")
    if not _is_path(cell):
        raise TableError(f"the {what} is {shortened(cell)}", row.where, "give a path that the system can have")
