"""Rows of a CSV file with the line each stands on, and words for naming lines in messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodulemc.csv_files import read_csv
from nodulemc.errors import TableError

_NAMED_LINES = 5


@dataclass(frozen=True, slots=True)  # a cohort may have a million
class CsvRow:
    """One row: the file, the line it ends on (the header is line 1), and its cells by column."""

    path: Path
    line: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        """The row's place, for messages."""
        return f"{self.path}, line {self.line}"


def read_rows(path: str | Path, required: Sequence[str]) -> list[CsvRow]:
    """Read a UTF-8 CSV file with a header.

    Args:
        path: the file.
        required: columns that must be there; others are kept as they are.

    Raises:
        TableError: the file is unreadable, too large or has no rows, a column is missing or repeated, or a row has too
            many or too few cells.
    """
    path = Path(path)
    header, numbered = read_csv(path, TableError)
    header = [name.strip() for name in header]
    missing = [column for column in required if column not in header]
    if missing:
        raise TableError(
            f"missing column{'s'[: len(missing) > 1]} {', '.join(missing)}; found {', '.join(header) or 'none'}",
            f"{path}, line 1",
            f"give the columns {', '.join(required)}",
        )
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise TableError(f"repeated column {repeated!r}", f"{path}, line 1", "give each column its own name")
    rows = [
        CsvRow(path, line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})
        for line, cells in numbered
    ]
    if not rows:
        raise TableError("the table has no rows", path, "give one row per nodule")
    return rows


def name_rows(rows: Sequence[CsvRow]) -> str:
    """Where rows of one file stand, in words: the first few lines by number, then how many more."""
    lines = [str(row.line) for row in rows[:_NAMED_LINES]]
    more = f" and {len(rows) - _NAMED_LINES} more" if len(rows) > _NAMED_LINES else ""
    return f"{rows[0].path}, line{'s'[: len(rows) > 1]} {', '.join(lines)}{more}"
