"""The table of nodules: LUNA25's CSV, checked row by row before any work starts."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.columns import ANNOTATION, COORDINATES, LABEL, LABELS, PATIENT, UID
from nodulemc.errors import TableError
from nodulemc.ratings import HIGHEST, LOWEST, READERS
from nodulemc.util.table_rows import TableRow, read_rows
from nodulemc.util.text import plain_number

# Without these columns a row names no patient, scan or nodule.
_IDENTIFIERS = (PATIENT, UID, ANNOTATION)
Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table's rows in the file's order.

    Attributes:
        path: The file.
        rows: One dict per nodule. Coordinates (world x, y, z in mm, LPS) are floats. ``label`` is the integer 0
            (benign) or 1 (malignant), or None (undecided). Ratings (see ``typed``) are floats or None. Everything else
            is text.
        lines: The line of each row in the file. The header is line 1.
    """

    path: Path
    rows: list[Row]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def located(self) -> Iterator[tuple[Row, str]]:
        """Yield each row with its place in words, for messages."""
        for row, line in zip(self.rows, self.lines, strict=True):
            yield row, f"{self.path}, line {line}"


def read_table(path: str | Path) -> Table:
    """Read LUNA25's CSV, or one with the used columns (see ``nodulemc.columns``). Further columns are kept.

    Raises:
        TableError: a column is missing or repeated, a row has too many or too few cells, an identifier is empty or
            unfit as a file name, an AnnotationID repeats, a label is not 0, 1 or empty, a coordinate is no finite
            number, a rating is off its scale, or the table has no rows. The message names the line (the header is line
            1).
        FileError: the file cannot be read.
    """
    path = Path(path)
    table = Table(path, [], [])
    first: dict[str, int] = {}
    for found in read_rows(path, (*_IDENTIFIERS, *COORDINATES, LABEL)):
        row = _checked_row(found)
        name = row[ANNOTATION]
        if name in first:
            raise TableError(
                f"duplicate AnnotationID {name}",
                found.where,
                f"line {first[name]} has it, too; give each nodule one row",
            )
        first[name] = found.line
        table.rows.append(row)
        table.lines.append(found.line)
    return table


def point_of(row: Row) -> tuple[float, float, float]:
    """Return a nodule's world point x, y, z in mm (LPS)."""
    return row["CoordX"], row["CoordY"], row["CoordZ"]


def typed(row: Row) -> Row:
    """Return a row with each value in its column's type.

    Coordinates are floats; the label is an integer or None. If the row has the column ``readers``, the columns of
    ``nodulemc.ratings`` are floats or None. Otherwise they have the table's own meaning, such as a phantom's margin.
    Every other column, known or not, is text.
    """
    kinds: dict[str, Callable[[Any], Any]] = {**dict.fromkeys(COORDINATES, float), LABEL: _or_none(int)}
    if READERS in row:
        kinds |= dict.fromkeys((READERS, *HIGHEST), _or_none(float))
    return {name: kinds[name](value) if name in kinds else _text(value) for name, value in row.items()}


def _or_none(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value in (None, "") else kind(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _checked_row(found: TableRow) -> Row:
    row: Row = dict(found.cells)
    for column in _IDENTIFIERS:
        # Scans, masks and blocks are named after these values.
        if not row[column] or Path(row[column]).name != row[column]:
            raise TableError(f"{column} is {row[column]!r}", found.where, "give a name that can be a file name")
    if row[LABEL] and row[LABEL] not in LABELS:
        remedy = "write 0 (benign) or 1 (malignant), or nothing (undecided)"
        raise TableError(f"label is {row[LABEL]!r}", found.where, remedy)
    row[LABEL] = LABELS.get(row[LABEL])
    for column in COORDINATES:
        if plain_number(row[column]) is None:
            raise TableError(f"{column} is {row[column]!r}", found.where, "give a finite number in mm")
    if READERS in row:
        for column in (READERS, *HIGHEST):
            check_rating(found, column, column)
    return typed(row)


def check_rating(row: TableRow, column: str, name: str) -> float:
    """Return the number in a column with ratings of this name, or with numbers of readers. NaN if there is none.

    Raises:
        TableError: it is no number or off its scale.
    """
    cell = row.cells.get(column, "")
    rating, highest = plain_number(cell), HIGHEST.get(name, math.inf)
    if cell and (rating is None or not LOWEST <= rating <= highest):
        scale = f"from {LOWEST} to {highest}" if name in HIGHEST else f"of {LOWEST} or more"
        remedy = f"give a number {scale}, or nothing; ratings are read where there is a column {READERS}"
        raise TableError(f"{column} is {cell!r}", row.where, remedy)
    return math.nan if rating is None else rating
