"""Numbers in text: strict reading, and nouns with their numbers."""

import math
import re

# float() also accepts underscores, other alphabets' digits, nan and inf.
_NUMBER = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)


def plain_number(text: str) -> float | None:
    """Return the finite number that ``text`` writes in ASCII digits. None for other texts, and beyond floats' range."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def plural(noun: str, number: int) -> str:
    """Return the form of a noun after a number: "scan" after 1, "scans" after any other."""
    return noun if number == 1 else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 scan", "2 scans"."""
    return f"{number} {plural(noun, number)}"
