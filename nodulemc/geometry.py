"""Regular voxel grids, and the position of one relative to another. Needs no other part of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nodulemc.arrays import Array

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# Headers hold rounded numbers (NIfTI: 32-bit floats), so voxels this close to each other are the same.
_SAME_VOXEL = 0.1


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid. Every tuple is in x, y, z order, lengths are in mm, and world coordinates are LPS.

    Attributes:
        size: The number of voxels along each index axis.
        spacing: mm per voxel.
        origin: The world position of the centre of voxel (0, 0, 0).
        direction: The direction cosines, row-major, as in ITK.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...] = IDENTITY

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_matrix(cls, size: tuple[int, int, int], origin: Array, matrix: Array) -> Grid:
        """Return the grid with this origin (3,) and this matrix (3, 3) from index to world offset."""
        spacing = np.linalg.norm(matrix, axis=0)
        return cls(size, tuple(spacing.tolist()), tuple(origin.tolist()), tuple((matrix / spacing).ravel().tolist()))

    @property
    def matrix(self) -> Array:
        """The (3, 3) matrix from index to world offset: the direction's columns times the spacing."""
        matrix: Array = np.array(self.direction).reshape(3, 3) * np.array(self.spacing)
        return matrix

    def to_world(self, index: ArrayLike) -> Array:
        """Return the world points (..., 3) of continuous indices (..., 3)."""
        world: Array = np.asarray(index) @ self.matrix.T + np.array(self.origin)
        return world

    def to_index(self, point: ArrayLike) -> Array:
        """Return the continuous indices (..., 3) of world points (..., 3)."""
        index: Array = (np.asarray(point) - np.array(self.origin)) @ np.linalg.inv(self.matrix).T
        return index

    def contains(self, point: Sequence[float]) -> bool:
        """Return whether a world point lies within the outer faces of the border voxels."""
        index = self.to_index(point)
        return bool((index >= -0.5).all() and (index <= np.array(self.size) - 0.5).all())

    def offset_of(self, other: Grid) -> tuple[int, int, int] | None:
        """Return the index here of the other grid's first voxel. None if the voxels of the two do not coincide."""
        # The far ends of the three edges also show differences in spacing and direction.
        edges = np.vstack([np.zeros(3), np.diag(other.size)])
        index = self.to_index(other.to_world(edges))
        offset = np.rint(index[0])
        if np.abs(index - (offset + edges)).max() > _SAME_VOXEL:
            return None
        return tuple(offset.astype(int).tolist())

    def box(self, point: ArrayLike, extent_mm: float) -> tuple[Array, Array]:
        """Return the lower and upper index (3,) of the voxels that cover a world cube of this extent within the grid.

        It is for grids whose direction is a permutation of the axes or close to it, as for any CT.
        """
        corners = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T * extent_mm
        index = self.to_index(np.asarray(point) + corners)
        lower = np.clip(np.floor(index.min(axis=0)).astype(int), 0, self.size)
        upper = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, 0, self.size)
        return lower, upper

    def crop(self, lower: ArrayLike, upper: ArrayLike) -> Grid:
        """Return the grid of the voxels ``lower`` ≤ index < ``upper``, which may lie beyond this one."""
        width, height, depth = np.subtract(upper, lower).tolist()
        return replace(self, size=(width, height, depth), origin=tuple(self.to_world(np.array(lower, float)).tolist()))

    def image(self, array: Array) -> sitk.Image:
        """Return a SimpleITK image of an array (z, y, x) on this grid."""
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


def size_of(voxels: Array) -> tuple[int, int, int]:
    """Return the number of voxels along x, y and z of an array with axes z, y, x."""
    depth, height, width = voxels.shape
    return width, height, depth


def in_words(size: Sequence[int]) -> str:
    """Return a size in words, for messages."""
    return "×".join(map(str, size))
