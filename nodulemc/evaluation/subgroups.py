"""Subgroups of nodules by the table's columns: age band, sex, diameter."""

import math
from itertools import pairwise

import numpy as np

from nodulemc.arrays import Array
from nodulemc.errors import TableError
from nodulemc.evaluation.predictions import Predictions

# Five-year bands over the ages that lung cancer screening invites.
_AGE_EDGES = (55, 60, 65, 70)
# The size steps of Lung-RADS v2022 (American College of Radiology) for solid nodules.
_DIAMETER_EDGES = (6, 8, 15)
_UNKNOWN = "unknown"


def subgroups(predictions: Predictions) -> dict[str, dict[str, Array]]:
    """Return the positions of the nodules of each subgroup, by criterion and band.

    The criteria are ``age`` (column Age_at_StudyDate, years), ``sex`` (Gender) and ``diameter_mm`` (diameter_mm).
    Criteria without values and empty bands are left out. A band includes its lower edge.

    Raises:
        TableError: an age or diameter is not a number.
    """
    groups = {
        "age": _bands(predictions, "Age_at_StudyDate", _AGE_EDGES, whole=True),
        "sex": _categories([cells.get("Gender") or _UNKNOWN for cells in predictions.columns]),
        "diameter_mm": _bands(predictions, "diameter_mm", _DIAMETER_EDGES, whole=False),
    }
    return {criterion: bands for criterion, bands in groups.items() if set(bands) != {_UNKNOWN}}


def _bands(predictions: Predictions, column: str, edges: tuple[int, ...], *, whole: bool) -> dict[str, Array]:
    """Return positions by band. Bands of whole numbers are named by their last number, others by the next edge."""
    between = [f"{low}-{high - 1}" if whole else f"{low}-<{high}" for low, high in pairwise(edges)]
    names = [f"<{edges[0]}", *between, f">={edges[-1]}", _UNKNOWN]
    values = [
        _number(cells.get(column, ""), column, name)
        for name, cells in zip(predictions.ids, predictions.columns, strict=True)
    ]
    # NaN sorts after every edge, and so falls into one band more.
    places = [len(edges) + 1 if math.isnan(v) else int(np.searchsorted(edges, v, side="right")) for v in values]
    found = _categories([names[place] for place in places])
    return {name: found[name] for name in names if name in found}


def _categories(values: list[str]) -> dict[str, Array]:
    array = np.array(values)
    return {str(value): np.flatnonzero(array == value) for value in np.unique(array)}


def _number(text: str, column: str, nodule: str) -> float:
    """Return the cell's number, NaN for an empty cell."""
    if text == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{column} is {text!r}", f"nodule {nodule}", "give a number, or leave the cell empty")
    return value
