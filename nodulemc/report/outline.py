"""A mask's outline as the path of an SVG."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from nodulemc.arrays import Array
from nodulemc.measure.axes import outline
from nodulemc.measure.mask import THRESHOLD

UNITS = 10  # of the path to a pixel: whole numbers are short
_Point = tuple[float, float]


def path(probability: Array) -> str:
    """Return the outline on one slice, ``UNITS`` to a pixel, from the picture's upper left corner; may be empty.

    Args:
        probability: float (rows, columns). The mask is where it exceeds one half; beyond the array there is none.
    """
    if not (probability > THRESHOLD).any():
        return ""
    segments = outline(np.pad(probability, 1) - THRESHOLD)
    # The first pixel's middle has index 1 after padding and lies half a pixel from the corner.
    return "".join(map(_drawn, _loops((segments - 0.5) * UNITS)))


def _loops(segments: Array) -> Iterator[list[_Point]]:
    """Join segments (N, 2 ends, 2) to closed chains of points (row, column): neighbours share an end exactly."""
    beside: dict[_Point, list[_Point]] = defaultdict(list)
    for first, second in segments.tolist():
        if first != second:
            beside[tuple(first)].append(tuple(second))
            beside[tuple(second)].append(tuple(first))
    for start in list(beside):
        while beside[start]:
            loop = [start]
            while beside[loop[-1]]:
                following = beside[loop[-1]].pop()
                beside[following].remove(loop[-1])
                loop.append(following)
            yield loop


def _drawn(loop: list[_Point]) -> str:
    places = np.round(loop).astype(int)
    (row, column), steps = places[0], np.diff(places, axis=0)
    moves = (f"{x} {y}" for y, x in steps.tolist() if x or y)
    return f"M{column} {row}l{' '.join(moves)}z".replace(" -", "-")
