"""Where a CT file keeps its voxels."""

from dataclasses import dataclass
from pathlib import Path


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
        rescaled: whether ITK makes other numbers of them.
    """

    file: Path
    start: int
    compressed: bool
    skip: int = 0
    padding: int = 0
    byte_order: str = "<"
    rescaled: bool = False
