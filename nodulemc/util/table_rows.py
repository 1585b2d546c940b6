"""Rows of a CSV or Parquet file, each with its line, and words for naming lines in messages."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.columns import IDENTIFIERS, canonical
from nodulemc.errors import TableError
from nodulemc.limits import MAX_TABLE_BYTES
from nodulemc.util.csv_files import read_csv
from nodulemc.util.extras import import_extra
from nodulemc.util.files import read_limited
from nodulemc.util.identifiers import EXACT_BITS, restored, rounded
from nodulemc.util.text import plural

_NAMED_LINES = 5


@dataclass(frozen=True, slots=True)  # a cohort may have a million
class TableRow:
    """One row: the file, the line it ends on (the header is line 1), and its cells by column."""

    path: Path
    line: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        """The row's place, for messages."""
        return f"{self.path}, line {self.line}"


def read_rows(path: str | Path, required: Sequence[str]) -> list[TableRow]:
    """Return the rows of ``read_table``."""
    return read_table(path, required)[1]


def read_table(path: str | Path, required: Sequence[str]) -> tuple[list[str], list[TableRow]]:
    """Read a CSV file with a header (see ``nodulemc.util.csv_files.read_csv``), or a Parquet file.

    Columns get the names of ``nodulemc.columns.canonical``. Identifiers that were turned into floats become whole
    numbers again. The lines of a Parquet file are its rows, counted from 1.

    Args:
        path: The file.
        required: The columns that must exist. Others are kept as they are.

    Returns:
        The header as it stands in the file, and the rows.

    Raises:
        FileError: the file cannot be read or is too large.
        TableError: it is malformed or has no rows, a column is missing or repeated, a row has too many or too few
            cells, or identifiers have lost digits to rounding.
        ConfigError: a Parquet file is given and pyarrow is not installed.
    """
    path = Path(path)
    is_parquet = path.suffix.lower() == ".parquet"
    header, numbered = _read_parquet(path) if is_parquet else read_csv(path)
    header = [name.strip() for name in header]
    columns = canonical(header)
    missing = [column for column in required if column not in columns]
    if missing:
        raise TableError(
            f"missing {plural('column', len(missing))} {', '.join(missing)}; found {', '.join(header) or 'none'}",
            f"{path}, line 1",
            f"give the columns {', '.join(required)}",
        )
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None:
        raise TableError(f"repeated column {repeated!r}", f"{path}, line 1", "give each column its own name")
    rows = [
        TableRow(path, line, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)})
        for line, cells in numbered
    ]
    if not rows:
        raise TableError("the table has no rows", path, "give one row per nodule")
    for column in set(IDENTIFIERS) & set(columns):
        _restore_identifiers(rows, column)
    return header, rows


def name_rows(rows: Sequence[TableRow]) -> str:
    """Describe the lines of rows in words: the first few by number, then how many more."""
    lines = [str(row.line) for row in rows[:_NAMED_LINES]]
    more = f" and {len(rows) - _NAMED_LINES} more" if len(rows) > _NAMED_LINES else ""
    return f"{rows[0].path}, {plural('line', len(rows))} {', '.join(lines)}{more}"


def _restore_identifiers(rows: Sequence[TableRow], column: str) -> None:
    """Give a column's whole numbers their digits back if all of them are written as floats.

    Raises:
        TableError: one is rounded.
    """
    cells = restored(column, [row.cells[column] for row in rows], lambda k: rows[k].where)
    for row, cell in zip(rows, cells, strict=True):
        row.cells[column] = cell


def _read_parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return a Parquet file's columns, and its rows with their values as text. Missing values are empty."""
    parquet = import_extra("pyarrow.parquet", "cohort")
    content = io.BytesIO(read_limited(path, MAX_TABLE_BYTES))
    try:
        table = parquet.read_table(content)
        header = list(table.column_names)
        values = [column.to_pylist() for column in table.columns]
    except (OSError, ValueError, NotImplementedError) as error:  # Arrow's own errors are subclasses of these
        raise TableError(f"cannot read the table ({error})", path, "give a Parquet or UTF-8 CSV file") from error
    for name, field, column in zip(canonical(header), table.schema, values, strict=True):
        if name in IDENTIFIERS:
            _require_exact(name, column, field.type, path)
    return header, ((line, [_text(value) for value in row]) for line, row in enumerate(zip(*values, strict=True), 1))


def _require_exact(name: str, values: Sequence[object], kind: Any, path: Path) -> None:
    """Refuse whole numbers that floats of this kind cannot tell from the next number.

    Raises:
        TableError: there is one.
    """
    kind = getattr(kind, "value_type", kind)  # the type of the categories
    for line, value in enumerate(values, start=1):
        if isinstance(value, float) and value.is_integer() and abs(value) >= 1 << EXACT_BITS[kind.bit_width]:
            raise rounded(name, value, f"{path}, line {line}")


def _text(value: object) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()
