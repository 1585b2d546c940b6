"""Clinical information for a cohort's risk models: a table with rows about patients, scans or nodules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from nodulemc.cohort.names import annotation_id
from nodulemc.columns import AGE, ANNOTATION, GENDER, PATHS, PATIENT, UID
from nodulemc.errors import TableError
from nodulemc.measure.clinical import NODULE_KEYS, PATIENT_KEYS, known_values
from nodulemc.measure.risk import assess
from nodulemc.points.nodules import shortened
from nodulemc.util.table_rows import TableRow, read_table
from nodulemc.util.text import plain_number

if TYPE_CHECKING:
    from nodulemc.cohort.scan import Scan
    from nodulemc.prediction import NodulePrediction

_COLUMNS = {"age": AGE, "gender": GENDER}  # of the keys that the columns have another name for
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_NAMES = (ANNOTATION, *PATHS, UID, PATIENT)
_REMEDY = f"give {ANNOTATION} of nodules, {UID} or ct of scans, or {PATIENT}, and columns such as age and type"

Known = dict[str, Any]


@dataclass(frozen=True)
class Clinical:
    """The known values about one scan, by the risk models' names.

    Attributes:
        patient: The values about the patient at the time of the scan.
        nodules: The values about nodules, by AnnotationID; they take precedence over the patient's.
    """

    patient: Known
    nodules: dict[str, Known]


@dataclass
class ClinicalTable:
    """The contents of a table, by the subjects of its rows.

    Attributes:
        source: The file.
        patients: The values by PatientID.
        scans: The values by SeriesInstanceUID, or by path as in the manifest.
        nodules: The values by AnnotationID.
    """

    source: Path
    patients: dict[str, Known] = field(default_factory=dict)
    scans: dict[str, Known] = field(default_factory=dict)
    nodules: dict[str, Known] = field(default_factory=dict)

    def of(self, scan: Scan) -> Clinical:
        """Return the values about a scan: its patient's, replaced by its own, replaced by each nodule's."""
        names = [*sorted(scan.ids.uids), *filter(None, [scan.series]), scan.name]
        patient = self.patients.get(scan.patient or "", {})
        for name in names:
            patient = patient | self.scans.get(name, {})
        return Clinical(patient, {name: self.nodules[name] for name in self._names(scan)})

    def of_all(self, scans: Iterable[Scan]) -> dict[str, Clinical]:
        """Return the values about each scan, by its name.

        Raises:
            TableError: There are none at all.
        """
        found = {scan.name: self.of(scan) for scan in scans}
        if not any(clinical.patient or clinical.nodules for clinical in found.values()):
            what = f"no row says anything of the manifest's {ANNOTATION}s, scans or {PATIENT}s"
            raise TableError(what, self.source, "write them as the manifest does")
        return found

    def _names(self, scan: Scan) -> list[str]:
        """Return the AnnotationIDs of a scan's nodules that are in the table."""
        if isinstance(scan.points, Path):  # how many they are is not known before it is read
            return [name for name in self.nodules if name.rpartition("#")[0] == scan.name]
        names = (annotation_id(scan.name, k, nodule.name) for k, nodule in enumerate(scan.points, start=1))
        return [name for name in names if name in self.nodules]


def read_clinical_table(path: Path) -> ClinicalTable:
    """Read a CSV or Parquet table with clinical values about patients, scans and nodules.

    Each row is about the most specific thing that it names: a nodule (AnnotationID), else a scan (path or
    SeriesInstanceUID), else a patient (PatientID). Empty cells and "unknown" mean that a value is not known.

    Raises:
        FileError: the file cannot be read.
        CaseError: A value is not one of its column's; the message names the line.
        TableError: naming lines: the table cannot be used, a row names nothing, two rows contradict each other,
            or a row that names no nodule describes one.
        ConfigError: a Parquet file is given and pyarrow is not installed.
    """
    _, rows = read_table(path, ())
    if not any(name in rows[0].cells for name in _NAMES) or not any(map(_cells, rows)):
        raise TableError("no clinical information", path, _REMEDY)
    table = ClinicalTable(path)
    first: dict[str, TableRow] = {}
    for row in rows:
        kind, name = _about(row, table)
        _add(kind.setdefault(name, {}), _known(row, is_nodule=kind is table.nodules), first.setdefault(name, row), row)
    return table


def assessed(
    predictions: Sequence[NodulePrediction], names: Sequence[str], clinical: Clinical | None
) -> list[NodulePrediction]:
    """Add clinical risk to measured predictions, if it is asked for.

    Args:
        predictions: The predictions for one scan.
        names: Their AnnotationIDs.
        clinical: The known values about the scan. None if no risk is asked for.
    """
    if clinical is None:
        return list(predictions)
    known = (clinical.patient | clinical.nodules.get(name, {}) for name in names)
    return [replace(p, risk=assess(_inputs(p, own))) for p, own in zip(predictions, known, strict=True)]


def _inputs(prediction: NodulePrediction, known: Known) -> Known:
    if prediction.measurements is None:
        raise ValueError("the nodule is not measured")
    return {**known, **asdict(prediction.measurements)}


def _about(row: TableRow, table: ClinicalTable) -> tuple[dict[str, Known], str]:
    """Return the subject of a row."""
    kinds = {ANNOTATION: table.nodules, **dict.fromkeys((*PATHS, UID), table.scans), PATIENT: table.patients}
    column = next((column for column in kinds if row.cells.get(column)), None)
    if column is None:
        raise TableError("the row names nothing", row.where, _REMEDY)
    name = row.cells[column]
    return kinds[column], str(PurePath(name)) if column in PATHS else name


def _cells(row: TableRow) -> dict[str, str]:
    """Return the cells with values, by the models' names."""
    keys = (*PATIENT_KEYS, *NODULE_KEYS)
    return {key: cell for key in keys if (cell := row.cells.get(_COLUMNS.get(key, key)))}


def _known(row: TableRow, *, is_nodule: bool) -> Known:
    cells = _cells(row)
    stray = next((key for key in NODULE_KEYS if key in cells), None)
    if stray is not None and not is_nodule:
        raise TableError(f"{stray} of no nodule", row.where, f"name the nodule in a column {ANNOTATION}")
    return known_values({key: _value(cell) for key, cell in cells.items()}, row.where)


def _value(cell: str) -> Any:
    """Return a cell's value as in JSON."""
    if cell.lower() in _WORDS:
        return _WORDS[cell.lower()]
    return cell if (number := plain_number(cell)) is None else number


def _add(known: Known, more: Mapping[str, Any], earlier: TableRow, row: TableRow) -> None:
    for key, value in more.items():
        if known.setdefault(key, value) != value:
            raise TableError(
                f"{key} is {shortened(value)}",
                row.where,
                f"line {earlier.line} and those behind it say {shortened(known[key])} of the same; keep one",
            )
