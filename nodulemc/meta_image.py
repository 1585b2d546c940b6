"""MetaImage files: where their voxels are, and inflating compressed ones.

ITK reads a corrupt compressed .mha as noise without raising an error, so the checksum has to be verified here; doing
that while inflating costs nothing, inflating twice would cost as much as all else in reading.
"""

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.errors import ImageError
from nodulemc.inflating import inflate

SUFFIXES = (".mha", ".mhd")
_HEADER = 1 << 16


def locate_voxels(path: Path) -> tuple[Path | None, int, bool]:
    """Where a MetaImage's voxels are: file (None where there are several), offset, and whether compressed."""
    head = _head(path)
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


def read_compressed(path: Path, reader: sitk.ImageFileReader) -> sitk.Image | None:
    """Read a compressed 3-D MetaImage with one number per voxel; None where the file is not one.

    Args:
        path: the file.
        reader: has read the file's image information.

    Raises:
        ImageError: the voxels are cut, corrupt, too few, too many or missing.
    """
    data, start, compressed = locate_voxels(path)
    big_endian = re.search(rb"(?im)^(BinaryDataByteOrderMSB|ElementByteOrderMSB) *= *T", _head(path))
    plain = reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1
    if data is None or not compressed or big_endian or not plain:
        return None
    if not data.is_file():
        raise ImageError("the file with the voxels is missing", data, f"copy it beside {path.name}")
    voxel = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID())).dtype
    voxels = np.empty(reader.GetSize()[::-1], voxel)
    inflate(data, start, memoryview(voxels).cast("B"))
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(reader.GetOrigin())
    image.SetSpacing(reader.GetSpacing())
    image.SetDirection(reader.GetDirection())
    return image


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER)
