"""The predictions to evaluate: CSVs or a folder of Grand-Challenge's output JSON, matched with the table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodulemc.arrays import Array
from nodulemc.columns import ANNOTATION
from nodulemc.errors import TableError
from nodulemc.evaluation.predictions import Predictions, assemble, predictions_of, read_prediction_rows
from nodulemc.grand_challenge.results import read_grand_challenge_results
from nodulemc.util.table_rows import TableRow
from nodulemc.util.text import counted


@dataclass(frozen=True)
class Submission:
    """Predictions, and how they match the table.

    Attributes:
        rows: The row of each nodule, including nodules without a label.
        predictions: Each nodule once. If a nodule is predicted twice, the first prediction counts.
        listed: The positions in ``predictions`` of all predictions as listed, with repeats, int (m,), m >= n.
        listed_probabilities: Their probabilities (m,). The challenge counts repeats.
        omitted: The AnnotationIDs in the table that have a label but no prediction.
        duplicate: The AnnotationIDs that are predicted more than once.
        unknown: The predicted AnnotationIDs that are not in the table.
    """

    rows: Sequence[TableRow]
    predictions: Predictions
    listed: Array
    listed_probabilities: Array
    omitted: list[str]
    duplicate: list[str]
    unknown: list[str]

    @property
    def problems(self) -> dict[str, list[str]]:
        """The AnnotationIDs that do not match one to one, by the kind of problem."""
        return {"omitted": self.omitted, "duplicate": self.duplicate, "unknown": self.unknown}


def read_submission(paths: Sequence[Path], table: Mapping[str, TableRow] | None) -> Submission:
    """Read prediction CSVs, or one folder of Grand-Challenge's results.

    In CSVs an unknown or repeated nodule is refused. A folder holds an algorithm's answers, so such nodules are
    reported there, as are nodules without an answer.

    Raises:
        FileError: a file cannot be read.
        TableError: a file cannot be used, or a folder is given without a table, with another folder, or with files.
    """
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        rows = read_prediction_rows(paths, table is not None)
        return matched(predictions_of(rows, table), table, rows)
    if len(paths) > 1:
        raise TableError(f"{len(paths)} inputs, with a folder among them", folders[0], "give CSV files or one folder")
    if table is None:
        raise TableError("no labels", folders[0], "Grand-Challenge's results have none; give --table")
    return from_grand_challenge(folders[0], table)


def matched(
    predictions: Predictions, table: Mapping[str, TableRow] | None, rows: Sequence[TableRow] = ()
) -> Submission:
    """Return a submission in which each nodule is known and listed once."""
    known = set(predictions.ids)
    return Submission(
        rows=rows,
        predictions=predictions,
        listed=np.arange(len(predictions)),
        listed_probabilities=predictions.probabilities,
        omitted=[] if table is None else [name for name in table if name not in known and table[name].cells["label"]],
        duplicate=[],
        unknown=[],
    )


def from_grand_challenge(folder: Path, table: Mapping[str, TableRow]) -> Submission:
    """Return a submission from a folder of Grand-Challenge's output JSON.

    Raises:
        FileError, TableError: a file cannot be used, or the nodules known to the table are of only one class.
    """
    points = read_grand_challenge_results(folder)
    counts = Counter(point.name for point in points)
    known = [point for point in points if point.name in table]
    if not known:
        raise TableError(f"none of {counted(len(points), 'nodule')} is in the table", folder, "give the study's table")
    first = {point.name: point for point in reversed(known)}
    ids = [name for name in counts if name in first]
    predictions = assemble(
        ids=ids,
        probabilities=[first[name].probability for name in ids],
        columns=[{**first[name].origin, **table[name].cells} for name in ids],
        seeds={},
        folds=None,
        source=str(folder),
    )
    position = {name: k for k, name in enumerate(predictions.ids)}
    listed = [point for point in known if point.name in position]
    return Submission(
        rows=[TableRow(folder, k, {ANNOTATION: n, **first[n].attributes}) for k, n in enumerate(ids, start=1)],
        predictions=predictions,
        listed=np.array([position[point.name] for point in listed]),
        listed_probabilities=np.array([point.probability for point in listed]),
        omitted=[name for name in table if name not in counts and table[name].cells["label"]],
        duplicate=[name for name in ids if counts[name] > 1],
        unknown=[name for name in counts if name not in table],
    )
