"""Strict reading and atomic writing of CSV files."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nodulemc.errors import NoduleMCError
from nodulemc.json_files import read_limited, write_atomically
from nodulemc.limits import MAX_TABLE_BYTES, MAX_TABLE_ROWS


def read_csv(path: Path, error: type[NoduleMCError]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """A UTF-8 CSV file's header, empty where there is none, and its rows, read as they are asked for.

    Each row comes with the line it ends on; every row has as many cells as the header; blank lines are left out.

    Raises:
        error: the file cannot be read, is too large, malformed or too long, or a row has too many or too few cells;
            the rows' faults only where they are met.
    """
    content = io.BytesIO(read_limited(path, MAX_TABLE_BYTES, error))
    rows = _numbered(io.TextIOWrapper(content, "utf-8-sig", newline=""), path, error)
    _, header = next(rows, (1, []))
    return header, rows


def write_csv_atomically(path: Path, rows: Iterable[Sequence[Any]], error: type[NoduleMCError]) -> None:
    """Write UTF-8 CSV, the header first, so that ``path`` holds either the whole content or what it held before.

    Raises:
        error: the file cannot be written.
    """
    lines = _Lines()
    # Python up to 3.12 quotes a line break in a cell only if it is one of the terminator's characters.
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    write_atomically(path, "".join(line.removesuffix("\r\n") + "\n" for line in lines).encode(), error)


class _Lines(list[str]):
    """What a ``csv.writer`` writes, row by row."""

    write = list.append


def _numbered(text: Iterable[str], path: Path, error: type[NoduleMCError]) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows with their lines."""
    width = None
    reader = csv.reader(text, strict=True)
    try:
        for count, cells in enumerate(filter(None, reader)):
            width = width or len(cells)
            if len(cells) != width:
                raise error(
                    f"{len(cells)} cells",
                    f"{path}, line {reader.line_num}",
                    f"the header names {width} columns; quote cells that hold commas",
                )
            if count > MAX_TABLE_ROWS:
                raise error(f"more than {MAX_TABLE_ROWS} rows", path, "give a shorter table")
            yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as problem:
        raise error(f"cannot read the table ({problem})", path, "give a UTF-8 CSV file") from problem
