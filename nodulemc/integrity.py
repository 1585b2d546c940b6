"""Finding damaged CT files before they are read.

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


def check_integrity(path: Path, reader: sitk.ImageFileReader) -> None:
    """Check that a MetaImage or NIfTI file holds all voxels its header promises, and its checksum where it has one.

    Args:
        path: the file.
        reader: has read the file's image information.

    Raises:
        ImageError: the voxels are cut, corrupt, too few or missing.
    """
    voxels = 1
    for length in reader.GetSize():
        voxels *= length
    name = path.name.lower()
    if name.endswith((".mha", ".mhd")):
        data, start, compressed = _meta_image_voxels(path)
        one = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
        needed = voxels * sitk.GetArrayViewFromImage(one).nbytes
    elif name.endswith((".nii", ".nii.gz")):
        data, start, compressed = path, 0, name.endswith(".gz")
        needed = _NIFTI_HEADER + voxels * int(reader.GetMetaData("bitpix")) // 8
    else:
        return
    if data is None:
        return
    if not data.is_file():
        raise ImageError("the file with the voxels is missing", data, f"copy it beside {path.name}")
    found = _inflated_length(data, start) if compressed else data.stat().st_size - start
    if found < needed:
        raise ImageError(f"the file holds {found} of {needed} bytes", data, "copy the file again")


def _meta_image_voxels(path: Path) -> tuple[Path | None, int, bool]:
    """Where a MetaImage's voxels are: file (None where there are several), offset, and whether compressed."""
    with path.open("rb") as file:
        head = file.read(_META_HEADER)
    header = re.match(rb"(?s).*?^ElementDataFile *= *([^\r\n]*?) *\r?(\n|\Z)", head, re.MULTILINE)
    if header is None:
        return None, 0, False  # ITK has understood the file, so its header is merely unusual
    compressed = re.search(rb"(?im)^CompressedData *= *T", header.group()) is not None
    data = header.group(1).decode("utf-8", "surrogateescape")
    if data.upper() == "LOCAL":
        return path, header.end(), compressed
    if data.upper().startswith("LIST") or "%" in data:
        return None, 0, False
    return path.parent / data, 0, compressed


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
