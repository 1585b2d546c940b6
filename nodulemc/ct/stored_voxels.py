"""What a CT file's header says: the image's grid, and where and how the file keeps the voxels."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nodulemc.ct.scan_ids import ScanIds

ByteOrder: TypeAlias = Literal["<", ">"]
NOT_RESCALED = (1.0, 0.0)


@dataclass(frozen=True)
class StoredVoxels:
    """Where a file's voxels are, and what is to be done to them.

    Attributes:
        file: the file.
        start: offset of the first voxel, or of the zlib or gzip stream that holds the voxels.
        compressed: whether there is such a stream.
        skip: bytes of the decoded stream before the first voxel.
        padding: bytes of the decoded stream that may follow the last voxel.
        byte_order: "<" or ">".
        rescaling: slope and intercept that make HU of the stored numbers.
    """

    file: Path
    start: int
    compressed: bool
    skip: int = 0
    padding: int = 0
    byte_order: ByteOrder = "<"
    rescaling: tuple[float, float] = NOT_RESCALED


@dataclass(frozen=True)
class ImageHeader:
    """A 3-D scalar image in a file; every tuple is in x, y, z order, world coordinates are in mm, LPS.

    Attributes:
        size: voxels along each axis.
        spacing: mm per voxel.
        origin: world position of the first voxel's centre.
        direction: row-major direction matrix, as in ITK.
        stored_type: the voxels' type in the file, in the machine's byte order.
        voxels: where they are.
        ids: what the header says whose scan it is.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    stored_type: np.dtype[Any]
    voxels: StoredVoxels
    ids: ScanIds = field(default_factory=ScanIds)

    @property
    def voxel_type(self) -> np.dtype[Any]:
        """The type of the voxels as they are read: as stored, or floating point where they are rescaled."""
        if self.voxels.rescaling == NOT_RESCALED:
            return self.stored_type
        return np.dtype(np.float32 if self.stored_type.itemsize <= 4 else np.float64)
