"""Decimal numbers as input files write them."""

import math
import re

# float() also takes underscores, other alphabets' digits, nan and inf.
_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)


def plain_number(text: str) -> float | None:
    """The finite number that ``text`` writes in ASCII digits; None where it is none or beyond a float's range."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
