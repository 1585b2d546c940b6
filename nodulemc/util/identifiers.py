"""Identifiers in tables: whole numbers that pandas or a spreadsheet has written as floats."""

import re
from collections.abc import Callable, Sequence

from nodulemc.errors import TableError

# pandas turns a column of whole numbers with gaps into floats, whose names then end in ".0".
_WHOLE_FLOAT = re.compile(r"(\d+)\.0", re.ASCII)
_ROUNDED = re.compile(r"\d(\.\d+)?[eE]\+\d+", re.ASCII)
# A float of so many bits holds every whole number up to two to this power.
EXACT_BITS = {16: 11, 32: 24, 64: 53}


def restored(column: str, cells: Sequence[str], where: Callable[[int], object]) -> Sequence[str]:
    """Return a column's cells. Whole numbers get their own digits back if all of them are written as floats.

    Args:
        column: The name of the column.
        cells: The content of the column. Empty cells are gaps.
        where: Returns the place of the cell with this index, for messages.

    Raises:
        TableError: a number is rounded.
    """
    found = [_WHOLE_FLOAT.fullmatch(cell) for cell in cells]
    for k, (cell, digits) in enumerate(zip(cells, found, strict=True)):
        if _ROUNDED.fullmatch(cell) or (digits and int(digits[1]) >= 1 << EXACT_BITS[64]):
            raise rounded(column, cell, where(k))
    if not all(digits or not cell for cell, digits in zip(cells, found, strict=True)):
        return cells
    return [digits[1] if digits else "" for digits in found]


def spellings(identifier: str) -> set[str]:
    """Return the ways in which a table may write an identifier."""
    return {identifier, f"{identifier}.0"} if identifier.isdecimal() else {identifier}


def rounded(column: str, value: object, where: object) -> TableError:
    """Return the error for an identifier that has lost digits."""
    return TableError(
        f"{column} is {value}, a rounded number", where, "store identifiers as text, which keeps all their digits"
    )
