"""Radiologists' ratings of a nodule, as LIDC-IDRI has them. Needs nothing.

Source: Armato et al., Med Phys 2011; the package pylidc documents what each number means.
"""

from collections.abc import Mapping
from math import nan
from typing import Any

READERS = "readers"  # the number of readers
MALIGNANCY = "malignancy"
LOWEST = 1
# The highest rating of each scale. Texture: 1 ground glass, 5 solid. Margin: 5 sharp. Sphericity: 5 round.
# Calcification: 6 absent.
HIGHEST = {
    MALIGNANCY: 5, "spiculation": 5, "lobulation": 5, "texture": 5, "margin": 5, "sphericity": 5, "calcification": 6,
    "subtlety": 5,
}  # fmt: skip
# The ratings that describe a nodule. Malignancy is the one to predict.
ATTRIBUTES = tuple(name for name in HIGHEST if name != MALIGNANCY)


def readers_scale(name: str, normalised: Any) -> Any:
    """Return a rating, or an array of ratings, on the readers' scale, from one with its scale mapped to 0…1."""
    return LOWEST + normalised * (HIGHEST[name] - LOWEST)


def normalised_rating(row: Mapping[str, Any], name: str) -> float:
    """Return a row's mean rating with its scale mapped to 0…1. NaN if the row has none."""
    rating = row.get(name)
    # A phantom's margin, for example, is a word.
    return (rating - LOWEST) / (HIGHEST[name] - LOWEST) if isinstance(rating, float) else nan
