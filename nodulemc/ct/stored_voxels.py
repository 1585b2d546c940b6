"""The contents of a CT file's header: the image's grid, and where and how the file stores the voxels."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nodulemc.ct.scan_ids import ScanIds

ByteOrder: TypeAlias = Literal["<", ">"]
NOT_RESCALED = (1.0, 0.0)


@dataclass(frozen=True)
class StoredVoxels:
    """The place and form of a file's voxels.

    Attributes:
        file: The file.
        start: The offset of the first voxel, or of the zlib or gzip stream with the voxels.
        compressed: Whether there is such a stream.
        skip: The bytes of the decoded stream before the first voxel.
        padding: The bytes of the decoded stream that may follow the last voxel.
        byte_order: "<" or ">".
        rescaling: The slope and intercept from stored numbers to HU.
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
        size: Voxels along each axis.
        spacing: mm per voxel.
        origin: The world position of the first voxel's centre.
        direction: The row-major direction matrix, as in ITK.
        stored_type: The voxels' type in the file, in the machine's byte order.
        voxels: The place and form of the voxels.
        ids: The identifiers of patient and scan in the header.
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
        """The type of the voxels after reading: as stored, or floating point if they are rescaled."""
        if self.voxels.rescaling == NOT_RESCALED:
            return self.stored_type
        return np.dtype(np.float32 if self.stored_type.itemsize <= 4 else np.float64)
