"""Finding damaged CT files that their readers accept.

ITK reads a corrupt compressed .mha as noise and a cut .nii.gz as zeros without raising an error; a damaged
scan must never become a probability. NRRD and DICOM readers check for themselves.
"""

import re
import zlib
from pathlib import Path

import SimpleITK as sitk

from nodulemc.errors import ImageError

_CHUNK = 1 << 20
_ZLIB_OR_GZIP = 47  # window bits that recognise either header (zlib.h, inflateInit2)
_META_HEADER = 1 << 16
_NIFTI_HEADER = 348


def check_integrity(path: Path, image: sitk.Image) -> None:
    """Check that a .mha, .nii or .nii.gz file holds all voxels of ``image``, and its checksum where it has one.

    Raises:
        ImageError: the voxel stream is cut, corrupt or too short.
    """
    name = path.name.lower()
    if name.endswith(".mha"):
        start = _compressed_start(path)
        if start is not None:
            needed = image.GetNumberOfPixels() * sitk.GetArrayViewFromImage(image).itemsize
            _check_length(_inflated_length(path, start), needed, path)
    elif name.endswith((".nii", ".nii.gz")):
        found = _inflated_length(path, 0) if name.endswith(".gz") else path.stat().st_size
        needed = _NIFTI_HEADER + image.GetNumberOfPixels() * int(image.GetMetaData("bitpix")) // 8
        _check_length(found, needed, path)


def _compressed_start(path: Path) -> int | None:
    """Offset of a MetaImage's zlib stream, None where its voxels are not compressed."""
    with path.open("rb") as file:
        header = re.match(rb"(?s).*?\nElementDataFile *= *LOCAL *\r?\n", file.read(_META_HEADER))
    compressed = header and re.search(rb"(?im)^CompressedData *= *T", header.group())
    return header.end() if compressed else None


def _inflated_length(path: Path, start: int) -> int:
    """Uncompressed length of the zlib or gzip stream (of one or more gzip members) from ``start`` on."""
    length = 0
    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            while chunk:
                if inflate.eof:
                    inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
                try:
                    length += len(inflate.decompress(chunk, 16 * _CHUNK))
                    while inflate.unconsumed_tail:
                        length += len(inflate.decompress(inflate.unconsumed_tail, 16 * _CHUNK))
                except zlib.error as error:
                    raise ImageError(f"the compressed voxels are corrupt ({error})", path, "copy it again") from error
                chunk = inflate.unused_data
    if not inflate.eof:
        raise ImageError("the compressed voxels end too early", path, "copy the file again")
    return length


def _check_length(found: int, needed: int, path: Path) -> None:
    if found < needed:
        raise ImageError(f"the file holds {found} of {needed} bytes", path, "copy the file again")
