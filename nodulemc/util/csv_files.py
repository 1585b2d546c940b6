"""Strict reading and atomic writing of CSV files."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nodulemc.columns import canonical, is_number
from nodulemc.errors import TableError
from nodulemc.limits import MAX_TABLE_BYTES, MAX_TABLE_ROWS
from nodulemc.util.files import read_limited, write_atomically
from nodulemc.util.text import counted

_BLANKS = " \t\xa0"
_SEPARATORS = ",;\t"
_SAMPLE = 1 << 16  # characters; a table's first line ends within them


def read_csv(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return a CSV file's header, empty if there is none, and its rows, which are read on demand.

    The file may be as spreadsheets write it. It is UTF-8, or UTF-16 with its mark. Cells are separated by commas,
    semicolons or tabs, whichever the first line has most of, and may have blanks around them. Rows without content,
    columns without a name, and empty cells beyond the last column are left out. In tables with semicolons, numbers may
    have decimal commas; they are returned with points.

    Each row comes with the number of its last line, and has as many cells as the header.

    Raises:
        FileError: the file cannot be read or is too large.
        TableError: it is malformed or too long, a row has too few cells or content beyond the last column, or numbers
            have decimal points as well as commas. A row's fault is raised only when the row is read.
    """
    content = read_limited(path, MAX_TABLE_BYTES)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = io.TextIOWrapper(io.BytesIO(content), "utf-16" if wide else "utf-8-sig", newline="")
    rows = _numbered(text, path)
    _, header = next(rows, (1, []))
    return header, rows


def write_csv_atomically(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write UTF-8 CSV, the header first. ``path`` holds either the whole content or its previous content.

    Raises:
        FileError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    # Python up to 3.12 quotes a line break in a cell only if it is one of the terminator's characters.
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row)
        text.seek(text.tell() - len("\r\n"))
        text.write("\n")
        text.truncate()
    write_atomically(path, text.getvalue().encode())


def _numbered(text: io.TextIOWrapper, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the header and the rows, each with its line."""
    try:
        separator, is_told = _separator(text)
        reader = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
        stripped = ([cell.strip(_BLANKS) for cell in cells] for cells in filter(any, reader))
        rows = filter(any, stripped)
        if is_told:
            next(rows)
        layout = _Layout(next(rows, []), separator, lambda: f"{path}, line {reader.line_num}")
        yield reader.line_num, layout.names
        for count, cells in enumerate(rows, start=1):
            yield reader.line_num, layout.picked(cells)
            if count > MAX_TABLE_ROWS:
                raise TableError(f"more than {MAX_TABLE_ROWS} rows", path, "give a shorter table")
    except (UnicodeError, csv.Error) as problem:
        raise TableError(f"cannot read the table ({problem})", path, "save it as CSV in UTF-8") from problem


def _separator(text: io.TextIOWrapper) -> tuple[str, bool]:
    """Return the separator of cells, and whether a first line ``sep=;``, meant for Excel, states it."""
    lines = text.read(_SAMPLE).splitlines()
    text.seek(0)
    first = next((line for line in lines if line.strip()), "")
    if told := re.fullmatch(f'"?sep=([{_SEPARATORS}])"?', first, re.IGNORECASE):
        return told[1], True
    unquoted = re.sub('"[^"]*"', "", first)
    return max(_SEPARATORS, key=unquoted.count), False


class _Layout:
    """The positions of a table's columns, and the form of its numbers.

    Attributes:
        names: The names of the columns that have one.
    """

    def __init__(self, header: Sequence[str], separator: str, where: Callable[[], str]) -> None:
        """Take a table's header. ``where`` returns the place of a row's fault."""
        self._where = where
        self._kept = [k for k, name in enumerate(header) if name]
        self._width = max(self._kept, default=-1) + 1
        self.names = [header[k] for k in self._kept]
        # If commas separate cells, they are not in numbers. Tables with tabs are written in any country.
        known = canonical(header) if separator == ";" else []
        self._numbers = [k for k, name in enumerate(known) if is_number(name)]
        self._marks: set[str] = set()

    def picked(self, cells: list[str]) -> list[str]:
        """Return the cells of the named columns, with decimal points in numbers."""
        if len(cells) < self._width or any(cells[self._width :]):
            columns = counted(self._width, "column")
            remedy = f"the header names {columns}; quote cells that hold separators"
            raise TableError(counted(len(cells), "cell"), self._where(), remedy)
        for k in self._numbers:
            cells[k] = self._with_point(cells[k])
        return [cells[k] for k in self._kept]

    def _with_point(self, cell: str) -> str:
        self._marks.update(mark for mark in ",." if mark in cell)
        if len(self._marks) > 1:
            raise TableError(
                f"decimal points and decimal commas in one table, last in {cell}",
                self._where(),
                "write all numbers with decimal points and no others",
            )
        return cell.replace(",", ".")
