"""Voxel grids of scans, blocks and masks: read from file headers, compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.checks import check_geometry, refuse_size
from nodulemc.ct.stored_voxels import ImageHeader
from nodulemc.ct.volume import read_image_header, reading
from nodulemc.errors import ImageError

if TYPE_CHECKING:
    from nodulemc.ct.dicom import SeriesHeader

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
    origin: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid of an image."""
        direction = np.array(image.GetDirection()).reshape(3, 3)
        return cls(tuple(image.GetSize()), np.array(image.GetOrigin()), direction * image.GetSpacing())

    @property
    def spacing(self) -> np.ndarray:
        """mm per voxel (3,)."""
        return np.linalg.norm(self.matrix, axis=0)

    def index_of(self, points: Sequence[float] | np.ndarray) -> np.ndarray:
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


def read_grid(path: Path, series: str | None = None) -> Grid:
    """The grid in an image file's header, or in those of a DICOM series: the folder's only one, or ``series``.

    Raises:
        ImageError: the file is missing or unreadable, or its header would be refused of a CT.
    """
    if path.is_dir():
        return _series_grid(path, series)
    if not path.is_file():
        raise ImageError("no such image", path, "check the path")
    with reading(path):
        header = read_image_header(path)
    if header is None:
        raise ImageError("no image with a geometry", path, "give a MetaImage, NIfTI or NRRD file")
    return _grid(header)


def _series_grid(folder: Path, series: str | None) -> Grid:
    from nodulemc.ct.dicom import read_header  # pydicom takes a while to import

    with reading(folder):
        header = read_header(folder, series)
    if min(header.size) < 2:
        refuse_size(header.size, folder)
    check_geometry(header.spacing, header.origin, header.direction, folder)
    return _grid(header)


def _grid(header: ImageHeader | SeriesHeader) -> Grid:
    direction = np.array(header.direction).reshape(3, 3)
    return Grid(header.size, np.array(header.origin), direction * header.spacing)


def in_words(size: Sequence[int]) -> str:
    """A size for messages."""
    return "×".join(map(str, size))
