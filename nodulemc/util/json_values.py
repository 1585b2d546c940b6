"""What a value of a JSON file has to be. Needs no torch."""

import math
from typing import Any


def number(value: Any) -> float:
    """A JSON number as a float.

    Raises:
        TypeError: it is something else, also where Python would convert it: true, or "1_0".
        ValueError: it is not finite.
        OverflowError: it is an integer beyond a float's range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.40} is no number")
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def text_or_none(value: Any) -> str | None:
    """A JSON string that says something, or null.

    Raises:
        TypeError: it is something else.
        ValueError: it is empty.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    if not value.strip():
        raise ValueError("an empty text; use null for nothing")
    return value
