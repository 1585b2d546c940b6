"""NIfTI-1 files: their header, and inflating compressed ones; ITK does not read NIfTI-2.

ITK reads a cut or corrupt .nii.gz as zeros without raising an error; its checksum is verified here while inflating.
Source: https://nifti.nimh.nih.gov (nifti1.h).
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodulemc.errors import ImageError
from nodulemc.inflating import inflate

SUFFIXES = (".nii", ".nii.gz")
_LENGTH = 348  # with the magic number at its end, without extensions
# What may stand between header and voxels (extensions), and behind the voxels (padding).
_MOST_BESIDES = 1 << 20


@dataclass(frozen=True)
class NiftiHeader:
    """What is used of a NIfTI-1 header.

    Attributes:
        byte_order: "<" or ">".
        pixdim: pixdim[1:4], the spacing in the file's units.
        form_codes: qform_code and sform_code.
        orientation: quaternion, offset and the rows of the affine, 18 numbers.
        bits_per_voxel: bitpix.
        voxel_offset: of the first voxel, in bytes.
        rescaling: scl_slope and scl_inter.
    """

    byte_order: str
    pixdim: tuple[float, ...]
    form_codes: tuple[int, ...]
    orientation: tuple[float, ...]
    bits_per_voxel: int
    voxel_offset: float
    rescaling: tuple[float, ...]


def read_header(path: Path) -> NiftiHeader:
    """The header of a .nii or .nii.gz.

    Raises:
        ImageError: the file does not begin with a header of one file with header and voxels.
    """
    head = _head(path)
    order = next((order for order in "<>" if head[:4] == struct.pack(f"{order}i", _LENGTH)), None)
    if order is None or head[344:348] != b"n+1\0":
        remedy = "give a NIfTI-1 .nii or .nii.gz that holds header and voxels"
        raise ImageError("cannot read the CT (no NIfTI-1 header)", path, remedy)
    (bits,) = struct.unpack_from(f"{order}h", head, 72)
    offset, *rescaling = struct.unpack_from(f"{order}3f", head, 108)
    return NiftiHeader(
        byte_order=order,
        pixdim=struct.unpack_from(f"{order}3f", head, 80),
        form_codes=struct.unpack_from(f"{order}2h", head, 252),
        orientation=struct.unpack_from(f"{order}18f", head, 256),
        bits_per_voxel=bits,
        voxel_offset=offset,
        rescaling=tuple(rescaling),
    )


def read_compressed(path: Path, shape: tuple[int, ...], voxel: np.dtype) -> np.ndarray | None:
    """Read a .nii.gz of little-endian voxels without rescaling; None where the file is another one.

    Args:
        path: the file.
        shape: (z, y, x).
        voxel: what ITK would make of each voxel.

    Raises:
        ImageError: the voxels are cut, corrupt, too few or too many.
    """
    header = read_header(path)
    plain = header.byte_order == "<" and header.rescaling in ((0, 0), (1, 0))
    if not path.name.lower().endswith(".gz") or not plain or not 0 <= header.voxel_offset <= _MOST_BESIDES:
        return None
    if voxel.itemsize * 8 != header.bits_per_voxel:  # ITK converts them
        return None
    start = int(header.voxel_offset)
    content = np.empty(start + voxel.itemsize * math.prod(shape), np.uint8)
    inflate(path, 0, memoryview(content), padding=_MOST_BESIDES)
    return content[start:].view(voxel).reshape(shape)


def _head(path: Path) -> bytes:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(_LENGTH).ljust(_LENGTH, b"\0")
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"cannot read the CT ({error})", path, "the file is damaged or no image") from error
