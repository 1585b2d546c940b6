"""NIfTI-1 files: their header, and where their voxels are; ITK does not read NIfTI-2.

ITK reads a cut or corrupt .nii.gz as zeros without raising an error: its checksum is verified while inflating.
Source: https://nifti.nimh.nih.gov (nifti1.h).
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from nodulemc.errors import ImageError
from nodulemc.stored_voxels import StoredVoxels

SUFFIXES = (".nii", ".nii.gz")
_LENGTH = 348  # with the magic number at its end, without extensions
# The standard's first offset behind the header, and its last one that is exact in 32 bits of floating point. Offsets
# before the first mean that one, says the standard; ITK and others read them otherwise.
_FIRST_OFFSET, _LAST_OFFSET = 352, 1 << 27
_MOST_PADDING = 1 << 20  # what may stand behind compressed voxels


@dataclass(frozen=True)
class NiftiHeader:
    """What is used of a NIfTI-1 header.

    Attributes:
        byte_order: "<" or ">".
        pixdim: pixdim[1:4], the spacing in the file's units.
        form_codes: qform_code and sform_code.
        quaternion: and its offset, 6 numbers; the qform.
        affine: its three rows, 12 numbers; the sform.
        voxel_offset: of the first voxel, in bytes.
        rescaling: scl_slope and scl_inter.
    """

    byte_order: str
    pixdim: tuple[float, ...]
    form_codes: tuple[int, ...]
    quaternion: tuple[float, ...]
    affine: tuple[float, ...]
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
    offset, *rescaling = struct.unpack_from(f"{order}3f", head, 108)
    return NiftiHeader(
        byte_order=order,
        pixdim=struct.unpack_from(f"{order}3f", head, 80),
        form_codes=struct.unpack_from(f"{order}2h", head, 252),
        quaternion=struct.unpack_from(f"{order}6f", head, 256),
        affine=struct.unpack_from(f"{order}12f", head, 280),
        voxel_offset=offset,
        rescaling=tuple(rescaling),
    )


def locate_voxels(path: Path) -> StoredVoxels:
    """Where the voxels of a .nii or .nii.gz are.

    Raises:
        ImageError: the header states an impossible offset.
    """
    header = read_header(path)
    offset = header.voxel_offset
    if not (_FIRST_OFFSET <= offset <= _LAST_OFFSET and offset.is_integer()):
        raise ImageError(f"vox_offset is {offset:g}", path, f"write a whole number, {_FIRST_OFFSET} or more")
    compressed = path.name.lower().endswith(".gz")
    start, skip = (0, int(offset)) if compressed else (int(offset), 0)
    rescaled = header.rescaling not in ((0, 0), (1, 0))
    return StoredVoxels(path, start, compressed, skip, _MOST_PADDING, header.byte_order, rescaled)


def _head(path: Path) -> bytes:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(_LENGTH).ljust(_LENGTH, b"\0")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ImageError(f"cannot read the CT ({error})", path, "the file is damaged or no image") from error
