"""One measured figure, in the form that is passed on, printed and kept."""

import json
import traceback
from collections.abc import Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: The name of the measurement.
        value: The figure, or a word if there is no figure. None if it could not be measured.
        unit: The unit of the figure.
        beside: The figure to compare it with, or the reason why there is none.
        met: Whether the goal beside it is met. None if it has no goal.
    """

    name: str
    value: float | str | None
    unit: str = ""
    beside: str = ""
    met: bool | None = None

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self._asdict())

    def text(self) -> str:
        """Return the row in the table's form."""
        value = "n/a" if self.value is None else self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        verdict = {None: "", True: "ok", False: "MISSED"}[self.met]
        return f"{self.name:50} {value:>10} {self.unit:12} {verdict:6} {self.beside}".rstrip()


def missing(name: str, error: BaseException) -> Row:
    """Return the row of something that could not be measured here."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return Row(name, None, "", f"not available: {reason[0]:.200}")


def attempt(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows. If they break off, yield a row that reports it, so that the next parts are still measured."""
    try:
        yield from rows
    except Exception as error:
        traceback.print_exc()
        yield missing(name, error)
