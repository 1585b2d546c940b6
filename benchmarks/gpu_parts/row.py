"""One measured figure, as it is handed over, printed and kept."""

import json
import traceback
from collections.abc import Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was measured.
        value: the figure; a word where it is none; None where it could not be had.
        unit: the figure's.
        beside: what to compare it with, or why there is none.
        met: whether the goal beside it is met; None where it has none.
    """

    name: str
    value: float | str | None
    unit: str = ""
    beside: str = ""
    met: bool | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self._asdict())

    def text(self) -> str:
        """The row as the table shows it."""
        value = "n/a" if self.value is None else self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        verdict = {None: "", True: "ok", False: "MISSED"}[self.met]
        return f"{self.name:50} {value:>10} {self.unit:12} {verdict:6} {self.beside}".rstrip()


def missing(name: str, error: BaseException) -> Row:
    """The row of something that could not be measured here."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return Row(name, None, "", f"not available: {reason[0]:.200}")


def attempt(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and where they break off, a row that says so: what follows is measured all the same."""
    try:
        yield from rows
    except Exception as error:
        traceback.print_exc()
        yield missing(name, error)
