"""Nodules' labels as tables write them."""

from collections import Counter
from collections.abc import Iterable

# 1 is malignant, 0 benign; pandas writes whole numbers as decimals where a column has gaps.
LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


def tally(labels: Iterable[int | None]) -> str:
    """How many of some nodules are malignant and, where there are any, undecided, in words."""
    counts = Counter(labels)
    return f"{counts[1]} malignant" + (f", {counts[None]} undecided" if counts[None] else "")
