"""The table of nodules: LUNA25's CSV, checked row by row before any work starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.csv_files import read_csv
from nodulemc.errors import TableError
from nodulemc.plain_numbers import plain_number

# Columns of luna25_public_training_development_data.csv (LUNA25, https://luna25.grand-challenge.org).
COLUMNS = (
    "PatientID", "SeriesInstanceUID", "StudyDate", "CoordX", "CoordY", "CoordZ", "LesionID", "AnnotationID",
    "NoduleID", "label", "Age_at_StudyDate", "Gender",
)  # fmt: skip
COORDINATES = ("CoordX", "CoordY", "CoordZ")
# What a column's values are; every other column, known or not, is kept as the text in the file.
TYPES = {**dict.fromkeys(COORDINATES, float), "label": int}
# Without these a row names no patient, scan or nodule.
_IDENTIFIERS = ("PatientID", "SeriesInstanceUID", "AnnotationID")
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
    """Read LUNA25's CSV or one with the same columns; further columns are kept.

    Raises:
        TableError: naming the line (the header is line 1): a column is missing or repeated, a row has too many or
            too few cells, an identifier is empty or unfit as a file name, an AnnotationID repeats, a label is not
            0 or 1, a coordinate is no finite number; or the file is unreadable or has no rows.
    """
    path = Path(path)
    header, numbered = read_csv(path, TableError)
    _check_header(header, path)
    table = Table(path, [], [])
    first: dict[str, int] = {}
    for line, cells in numbered:
        row = _checked_row(header, cells, f"{path}, line {line}")
        name = row["AnnotationID"]
        if name in first:
            raise TableError(
                f"duplicate AnnotationID {name}",
                f"{path}, line {line}",
                f"line {first[name]} has it, too; give each nodule one row",
            )
        first[name] = line
        table.rows.append(row)
        table.lines.append(line)
    if not table.rows:
        raise TableError("the table has no rows", path, "give one row per nodule")
    return table


def point_of(row: Row) -> tuple[float, float, float]:
    """A nodule's world point x, y, z in mm (LPS)."""
    return row["CoordX"], row["CoordY"], row["CoordZ"]


def _check_header(header: list[str], path: Path) -> None:
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise TableError(
            f"missing column{'s'[: len(missing) > 1]} {', '.join(missing)}",
            f"{path}, line 1",
            f"give LUNA25's columns: {', '.join(COLUMNS)}",
        )
    repeated = next((column for column in header if header.count(column) > 1), None)
    if repeated is not None:
        raise TableError(f"repeated column {repeated!r}", f"{path}, line 1", "give each column its own name")


def _checked_row(header: list[str], cells: list[str], where: str) -> Row:
    row: Row = dict(zip(header, cells, strict=True))
    for column in _IDENTIFIERS:
        # Scans, masks and blocks are found by these names.
        if not row[column].strip() or Path(row[column]).name != row[column]:
            raise TableError(f"{column} is {row[column]!r}", where, "give a name that can be a file name")
    if row["label"].strip() not in ("0", "1"):
        raise TableError(f"label is {row['label']!r}", where, "write 0 (benign) or 1 (malignant)")
    row["label"] = int(row["label"])
    for column in COORDINATES:
        row[column] = _finite(row[column], column, where)
    return row


def _finite(text: str, column: str, where: str) -> float:
    value = plain_number(text)
    if value is None:
        raise TableError(f"{column} is {text!r}", where, "give a finite number in mm")
    return value
