"""Numbers in text: read strictly, and of things, in words."""

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


def plural(noun: str, number: int) -> str:
    """The noun as it stands behind a number: "scan" behind 1, "scans" behind any other."""
    return noun if number == 1 else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """So many things: "1 scan", "2 scans"."""
    return f"{number} {plural(noun, number)}"
