"""The table of nodules: LUNA25's CSV, checked row by row before any work starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.columns import ANNOTATION, COORDINATES, LABEL, PATIENT, UID
from nodulemc.errors import TableError
from nodulemc.plain_numbers import plain_number
from nodulemc.table_rows import TableRow, read_rows

# What a column's values are; every other column, known or not, is kept as the text in the file.
TYPES = {**dict.fromkeys(COORDINATES, float), LABEL: int}
# Without these a row names no patient, scan or nodule.
_IDENTIFIERS = (PATIENT, UID, ANNOTATION)
Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table's rows in the file's order.

    Attributes:
        path: the file.
        rows: one dict per nodule: coordinates (world x, y, z in mm, LPS) as floats, ``label`` as the integer 0
            (benign) or 1 (malignant), everything else as text.
        lines: each row's line in the file; the header is line 1.
    """

    path: Path
    rows: list[Row]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def located(self) -> Iterator[tuple[Row, str]]:
        """Each row with the words that say where it is, for messages."""
        for row, line in zip(self.rows, self.lines, strict=True):
            yield row, f"{self.path}, line {line}"


def read_table(path: str | Path) -> Table:
    """Read LUNA25's CSV or one with the columns that are used (see ``nodulemc.columns``); further columns are kept.

    Raises:
        TableError: naming the line (the header is line 1): a column is missing or repeated, a row has too many or
            too few cells, an identifier is empty or unfit as a file name, an AnnotationID repeats, a label is not
            0 or 1, a coordinate is no finite number; or the file is unreadable or has no rows.
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
    """A nodule's world point x, y, z in mm (LPS)."""
    return row["CoordX"], row["CoordY"], row["CoordZ"]


def _checked_row(found: TableRow) -> Row:
    row: Row = dict(found.cells)
    for column in _IDENTIFIERS:
        # Scans, masks and blocks are found by these names.
        if not row[column] or Path(row[column]).name != row[column]:
            raise TableError(f"{column} is {row[column]!r}", found.where, "give a name that can be a file name")
    if row[LABEL] not in ("0", "1"):
        raise TableError(f"label is {row[LABEL]!r}", found.where, "write 0 (benign) or 1 (malignant)")
    row[LABEL] = int(row[LABEL])
    for column in COORDINATES:
        row[column] = _finite(row[column], column, found.where)
    return row


def _finite(text: str, column: str, where: str) -> float:
    value = plain_number(text)
    if value is None:
        raise TableError(f"{column} is {text!r}", where, "give a finite number in mm")
    return value
