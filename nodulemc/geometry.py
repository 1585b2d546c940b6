"""Regular voxel grids, and how two of them lie to each other. Needs no other part of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array

# Headers hold rounded numbers (NIfTI: 32-bit floats); voxels this close to each other are the same.
_SAME_VOXEL = 0.1


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid; everything is in x, y, z order, world coordinates are in mm, LPS.

    Attributes:
        size: number of voxels (3,).
        origin: float64 (3,), world position of the centre of voxel (0, 0, 0).
        matrix: float64 (3, 3), index -> world offset.
    """

    size: tuple[int, int, int]
    origin: Array
    matrix: Array

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid of an image."""
        direction = np.array(image.GetDirection()).reshape(3, 3)
        return cls(tuple(image.GetSize()), np.array(image.GetOrigin()), direction * image.GetSpacing())

    @property
    def spacing(self) -> Array:
        """mm per voxel (3,)."""
        spacing: Array = np.linalg.norm(self.matrix, axis=0)
        return spacing

    def index_of(self, points: Sequence[float] | Array) -> Array:
        """Continuous indices (..., 3) of world points (..., 3)."""
        return (np.asarray(points) - self.origin) @ np.linalg.inv(self.matrix).T

    def contains(self, point: Sequence[float]) -> bool:
        """Whether a world point lies within the outer faces of the border voxels."""
        index = self.index_of(point)
        return bool((index >= -0.5).all() and (index <= np.array(self.size) - 0.5).all())

    def offset_of(self, other: Grid) -> tuple[int, int, int] | None:
        """The index here of the other grid's first voxel, None where the voxels of the two do not coincide."""
        # The far ends of the three edges tell spacing and direction apart, too.
        edges = np.vstack([np.zeros(3), np.diag(other.size)])
        index = self.index_of(other.origin + edges @ other.matrix.T)
        offset = np.rint(index[0])
        if np.abs(index - (offset + edges)).max() > _SAME_VOXEL:
            return None
        return tuple(offset.astype(int).tolist())


def in_words(size: Sequence[int]) -> str:
    """A size for messages."""
    return "×".join(map(str, size))
