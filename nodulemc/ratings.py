"""Radiologists' ratings of a nodule, as LIDC-IDRI has them. Needs nothing.

Source: Armato et al., Med Phys 2011; the package pylidc documents what each number means.
"""

from collections.abc import Mapping
from math import nan
from typing import Any

READERS = "readers"  # how many rated
MALIGNANCY = "malignancy"
LOWEST = 1
# The highest rating of each scale. Texture: 1 ground glass, 5 solid. Margin: 5 sharp. Sphericity: 5 round.
# Calcification: 6 absent.
HIGHEST = {
    MALIGNANCY: 5, "spiculation": 5, "lobulation": 5, "texture": 5, "margin": 5, "sphericity": 5, "calcification": 6,
    "subtlety": 5,
}  # fmt: skip
# What describes a nodule; malignancy is what is to be told from it.
ATTRIBUTES = tuple(name for name in HIGHEST if name != MALIGNANCY)


def readers_scale(name: str, normalised: Any) -> Any:
    """A rating, or an array of them, on the readers' scale, from one whose scale was made 0…1."""
    return LOWEST + normalised * (HIGHEST[name] - LOWEST)


def normalised_rating(row: Mapping[str, Any], name: str) -> float:
    """A row's mean rating with its scale made 0…1; NaN where the row has none."""
    rating = row.get(name)
    # A phantom's margin, for one, is a word.
    return (rating - LOWEST) / (HIGHEST[name] - LOWEST) if isinstance(rating, float) else nan
