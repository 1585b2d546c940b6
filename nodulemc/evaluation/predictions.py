"""Predictions with their labels, patients and further columns, checked before anything is computed from them."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nodulemc.arrays import Array
from nodulemc.columns import LABELS, SEED_PREFIX, SEEN_IN_TRAINING
from nodulemc.ensemble.trained_cases import SEEN
from nodulemc.errors import TableError
from nodulemc.util.table_rows import TableRow, name_rows, read_rows
from nodulemc.util.text import plain_number

logger = logging.getLogger(__name__)
# LUNA25's AnnotationID consists of patient, nodule, and date of the study.
_LUNA25_ID = re.compile(r"(?P<patient>\d+)_\d+_\d{8}")
_LABEL_REMEDY = "write 0 (benign), 1 (malignant) or nothing"


@dataclass(frozen=True)
class Predictions:
    """Predictions for n nodules, each nodule once.

    Attributes:
        ids: The AnnotationIDs, in the input's order.
        labels: int (n,), 1 for malignant, 0 for benign. Both occur.
        probabilities: float64 (n,), 0…1.
        seeds: The probabilities of each member, float64 (n,), by column name. Empty if the input has none.
        folds: The fold of each nodule. None if the input names none.
        patients: int (n,), 0…number of patients − 1. If patients are not known, each nodule is its own.
        patients_known: Whether ``patients`` are real patients.
        columns: The further columns of each nodule, as text.
        source: The files or folder that the predictions come from.
    """

    ids: list[str]
    labels: Array
    probabilities: Array
    seeds: dict[str, Array]
    folds: list[str] | None
    patients: Array
    patients_known: bool
    columns: list[Mapping[str, str]]
    source: str

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Array) -> "Predictions":
        """Return the predictions at these positions, in this order. Patients keep their numbers."""
        return replace(
            self,
            ids=[self.ids[i] for i in index],
            labels=self.labels[index],
            probabilities=self.probabilities[index],
            seeds={name: values[index] for name, values in self.seeds.items()},
            folds=None if self.folds is None else [self.folds[i] for i in index],
            patients=self.patients[index],
            columns=[self.columns[i] for i in index],
        )


def read_table(path: str | Path) -> dict[str, TableRow]:
    """Read a table of nodules with at least AnnotationID and label, by AnnotationID.

    Raises:
        FileError: the file cannot be read.
        TableError: the table cannot be used, an AnnotationID is empty or repeats, or a label is neither 0 nor 1 nor
            empty. The message names the lines.
    """
    rows = read_rows(path, ("AnnotationID", "label"))
    _require(rows, _has_label_or_none, "label", _LABEL_REMEDY)
    return _by_id(rows)


def read_predictions(paths: Sequence[str | Path], table: Mapping[str, TableRow] | None = None) -> Predictions:
    """Read prediction CSVs, one after the other (for example one per fold).

    The columns are ``AnnotationID``, ``probability``, ``label`` (not needed with a table), and optionally ``fold`` and
    ``seed_…``. The table adds its columns. Its nodules without a prediction are left out. Nodules without a label are
    left out with a warning.

    Args:
        paths: The CSV files.
        table: The rows by AnnotationID, from ``read_table``.

    Raises:
        FileError: a file cannot be read.
        TableError: a table cannot be used, an AnnotationID is empty, repeats or is not in the table, a probability is
            not a number in 0…1, a label is neither 0 nor 1 nor empty or differs from the table's, or there are no
            labels or all are the same. The message names the lines.
    """
    return predictions_of(read_prediction_rows(paths, table is not None), table)


def read_prediction_rows(paths: Sequence[str | Path], labels_elsewhere: bool) -> list[TableRow]:
    """Return the rows of prediction CSVs, one file after the other.

    Each has AnnotationID, probability and, if labels are not elsewhere, label.

    Raises:
        FileError: a file cannot be read.
        TableError: a table cannot be used or lacks a column.
    """
    required = ("AnnotationID", *(() if labels_elsewhere else ("label",)), "probability")
    return [row for path in paths for row in read_rows(path, required)]


def predictions_of(rows: Sequence[TableRow], table: Mapping[str, TableRow] | None) -> Predictions:
    """Do the same as ``read_predictions``, from rows that were read before.

    Raises:
        TableError: see ``read_predictions``.
    """
    names = [name for name in rows[0].cells if name == "fold" or name.startswith(SEED_PREFIX)]
    for row in rows:
        if any(name not in row.cells for name in names):
            raise TableError(
                f"no column {next(name for name in names if name not in row.cells)}",
                f"{row.path}, line 1",
                f"give the same columns as in {rows[0].path}",
            )
    _by_id(rows)
    seeds = [name for name in names if name != "fold"]
    for column in ("probability", *seeds):
        _require(rows, partial(_has_probability, column), column, "give numbers in 0…1")
    _require(rows, _has_label_or_none, "label", _LABEL_REMEDY)
    column, remedy = SEEN_IN_TRAINING, f"write {', '.join(SEEN)} or nothing"
    _require(rows, lambda row: row.cells.get(column, "") in ("", *SEEN), column, remedy)
    if table is not None:
        remedy = "the table has no such nodule; give predictions and table of one study"
        _require(rows, lambda row: row.cells["AnnotationID"] in table, "AnnotationID", remedy)
        _require(
            rows,
            lambda row: len({LABELS[label] for label in _labels(row, table) if label}) < 2,
            "label",
            "the table says otherwise; give predictions and table of one study",
        )
    columns = [{k: v for k, v in filled(row).items() if k not in ("probability", *seeds)} for row in rows]
    if table is not None:
        columns = [
            cells | filled(table[cells["AnnotationID"]]) | {"label": next(filter(None, _labels(row, table)), "")}
            for row, cells in zip(rows, columns, strict=True)
        ]
    return assemble(
        ids=[row.cells["AnnotationID"] for row in rows],
        probabilities=[float(row.cells["probability"]) for row in rows],
        columns=columns,
        seeds={name: np.array([float(row.cells[name]) for row in rows]) for name in seeds},
        folds=[row.cells["fold"] for row in rows] if "fold" in names else None,
        source=", ".join(dict.fromkeys(str(row.path) for row in rows)),
    )


def assemble(
    *,
    ids: Sequence[str],
    probabilities: Sequence[float] | Array,
    columns: Sequence[Mapping[str, str]],
    seeds: Mapping[str, Array],
    folds: Sequence[str] | None,
    source: str,
) -> Predictions:
    """Put checked values together. ``columns`` hold the ``label`` of each nodule, and its ``PatientID`` if known.

    Nodules without a label are left out, with a warning.

    Raises:
        TableError: there are no labels or all are the same, or some nodules have a PatientID and others do not.
    """
    kept = [k for k, cells in enumerate(columns) if cells.get("label")]
    if 0 < len(kept) < len(columns):
        logger.warning("%s: %d of %d nodules have no label; left out", source, len(columns) - len(kept), len(columns))
    ids, columns = [ids[k] for k in kept], [columns[k] for k in kept]
    labels = np.array([LABELS[cells["label"]] for cells in columns], int)
    if len(set(labels.tolist())) < 2:
        what = f"no nodule of {len(labels)} has label {1 - labels[0]}" if kept else "no nodule has a label"
        raise TableError(what, source, "give malignant and benign nodules, with labels in a column label or a table")
    patients, known = patients_of(ids, columns, source)
    return Predictions(
        ids=ids,
        labels=labels,
        probabilities=np.asarray(probabilities, np.float64)[kept],
        seeds={name: values[kept] for name, values in seeds.items()},
        folds=None if folds is None else [folds[k] for k in kept],
        patients=patients,
        patients_known=known,
        columns=columns,
        source=source,
    )


def patients_of(ids: Sequence[str], columns: Sequence[Mapping[str, str]], source: str) -> tuple[Array, bool]:
    """Return the patients' numbers (n,), and whether the patients are known.

    The numbers follow ``patient_names``. If patients are not known, each nodule has its own number.

    Raises:
        TableError: some nodules have a PatientID and others do not.
    """
    names = patient_names(ids, columns, source)
    if names is None:
        return np.arange(len(ids)), False
    return np.unique(names, return_inverse=True)[1], True


def patient_names(ids: Sequence[str], columns: Sequence[Mapping[str, str]], source: str) -> list[str] | None:
    """Return the nodules' patients by ``PatientID``, else by LUNA25's AnnotationIDs, else None.

    Raises:
        TableError: some nodules have a PatientID and others do not.
    """
    names = [cells.get("PatientID", "") for cells in columns]
    if any(names) and not all(names):
        raise TableError(f"no PatientID for {ids[names.index('')]}", source, "name every nodule's patient, or none's")
    if any(names):
        return names
    matches = [_LUNA25_ID.fullmatch(name) for name in ids]
    return [match["patient"] for match in matches if match] if all(matches) else None


def _by_id(rows: Sequence[TableRow]) -> dict[str, TableRow]:
    _require(rows, lambda row: row.cells["AnnotationID"] != "", "AnnotationID", "give each nodule its AnnotationID")
    found: dict[str, TableRow] = {}
    for row in rows:
        first = found.setdefault(row.cells["AnnotationID"], row)
        if first is not row:
            raise TableError(
                f"duplicate AnnotationID {row.cells['AnnotationID']}",
                row.where,
                f"{first.where} has it, too; give each nodule one row",
            )
    return found


def _require(rows: Sequence[TableRow], holds: Callable[[TableRow], bool], column: str, remedy: str) -> None:
    """Refuse the rows of the first file for which ``holds`` is false. The message has the first value and all lines."""
    bad = [row for row in rows if not holds(row)]
    bad = [row for row in bad if row.path == bad[0].path]
    if bad:
        raise TableError(f"{column} is {bad[0].cells.get(column, '')!r}", name_rows(bad), remedy)


def filled(row: TableRow) -> dict[str, str]:
    """Return the row's cells that are not empty."""
    return {column: cell for column, cell in row.cells.items() if cell}


def _has_label_or_none(row: TableRow) -> bool:
    return row.cells.get("label", "") in ("", *LABELS)


def _labels(row: TableRow, table: Mapping[str, TableRow]) -> tuple[str, str]:
    """Return a nodule's label in the table, and in its prediction."""
    return table[row.cells["AnnotationID"]].cells["label"], row.cells.get("label", "")


def _has_probability(column: str, row: TableRow) -> bool:
    value = plain_number(row.cells[column])
    return value is not None and 0 <= value <= 1
