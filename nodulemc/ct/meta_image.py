"""MetaImage files: reading and checking the header, locating the voxels, and writing masks.

ITK never sees such a file. It would read a corrupt compressed .mha as noise without an error, and one with a missing or
wrong CompressedDataSize as whatever was in memory.
Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ct.checks import DAMAGED, quoted, refuse, refuse_type
from nodulemc.ct.scan_ids import read_ids
from nodulemc.ct.stored_voxels import ImageHeader, StoredVoxels
from nodulemc.errors import ImageError
from nodulemc.util.text import plain_number

SUFFIXES = (".mha", ".mhd")
_HEADER = 1 << 20  # with a slice's DICOM tags, private ones in base64, some 100 kB
_LAST = "ElementDataFile"
_BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
# How many numbers each field of an image of n dimensions holds; the names of one tuple mean the same to ITK.
_SPACING = ("ElementSpacing", "ElementSize")
_ORIGIN = ("Offset", "Position", "Origin")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
_ALONE = ("NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "BinaryData", "HeaderSize", "CompressedData")
# What else a header holds, converters' DICOM tags with line breaks and all, decides nothing. But a field that does is
# found whichever way ITK would find it, and then refused unless it is written as ``Key = value``.
_FIELD = re.compile(
    rf"^[ \t\r\v\f]*({'|'.join((*_ALONE, *_SPACING, *_ORIGIN, *_DIRECTION, *_BYTE_ORDER, _LAST))})"
    r"[ \t\v\f]*(?:=[ \t]*([^\n]*)(?:\n|\Z)|[:\r\n]|\Z)".encode(),
    re.MULTILINE,
)
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_WORLD_ALIGNED = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def read_header(path: Path) -> ImageHeader:
    """Read the header of a .mha or .mhd.

    Raises:
        ImageError: the header is malformed or states no geometry, or its voxels are no 3-D scalar image in plain binary
            data, or missing, in several files or in another folder.
    """
    fields, end = _read_fields(path)
    dimensions = _dimensions(fields, path)
    if fields.get("BinaryData", "").lower() != "true":
        refuse("the voxels are not plain binary data", path, "write the CT with BinaryData = True")
    identity = np.eye(dimensions)
    axes = np.reshape(_numbers(fields, _DIRECTION, identity.size, path, identity.ravel()), identity.shape)
    size = _size(fields, dimensions, path)
    type_ = _type(fields, path)
    return ImageHeader(
        size=size,
        spacing=_numbers(fields, _SPACING[:1] if _SPACING[0] in fields else _SPACING, dimensions, path)[:3],
        origin=_numbers(fields, _ORIGIN, dimensions, path, np.zeros(dimensions))[:3],
        direction=tuple(axes[:3, :3].T.ravel().tolist()),
        stored_type=type_,
        voxels=_locate(fields, end, path, math.prod(size) * type_.itemsize),
        ids=read_ids(path, end),
    )


def locate_voxels(path: Path) -> StoredVoxels:
    """Locate a MetaImage's voxels; nothing else in the header is checked.

    Raises:
        ImageError: the header is malformed, or the voxels are missing, in several files or in another folder.
    """
    return _locate(*_read_fields(path), path, 0)


def _locate(fields: dict[str, str], end: int, path: Path, length: int) -> StoredVoxels:
    """Locate the voxels, which have ``length`` bytes uncompressed."""
    file = _voxel_file(fields, path)
    big_endian = {_flag(fields, key, path) for key in _BYTE_ORDER if key in fields}
    if len(big_endian) > 1:
        refuse(f"{' and '.join(_BYTE_ORDER)} differ", path, "keep one; they mean the same")
    compressed = _flag(fields, "CompressedData", path)
    start = end if _is_local(fields) else 0
    if _counts_from_end(fields, path) and not compressed:
        start = max(start, file.stat().st_size - length)
    return StoredVoxels(file, start, compressed, byte_order=">" if True in big_endian else "<")


def _is_local(fields: dict[str, str]) -> bool:
    """Return whether the voxels follow the header."""
    return fields[_LAST].upper() == "LOCAL"


def _voxel_file(fields: dict[str, str], path: Path) -> Path:
    data = fields[_LAST]
    if _is_local(fields):
        return path
    name = str(Path(data))  # ./ct.raw is ct.raw
    if data.upper().startswith("LIST") or "%" in data or Path(name).name != name or "\\" in data or "\0" in data:
        refuse(f"the voxels are in {data[:60]!r}", path, "keep them in one file beside the header")
    file = path.parent / name
    if not file.is_file():
        raise ImageError("the file with the voxels is missing", file, f"copy it beside {path.name}")
    return file


def _read_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the relevant header fields, and the offset of the first byte after the header."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
    fields: dict[str, str] = {}
    for line in _FIELD.finditer(head):
        key, value = line.group(1).decode(), line.group(2)
        if not (value and value.strip()):
            _refuse_header(line.group(), path)
        if key in fields:
            refuse(f"{key!r} is stated twice", path, "write the CT again")
        fields[key] = value.strip(b" \t\r").decode("utf-8", "surrogateescape")
        if key == _LAST and line.end() < _HEADER:
            return fields, line.end()
    _refuse_header(head, path)


def _refuse_header(line: bytes, path: Path) -> NoReturn:
    start = line[:40].split(b"\n")[0]
    shown = f": {start!r}" if line else ""
    refuse(f"cannot read the CT (no MetaImage header{shown})", path, DAMAGED)


def _dimensions(fields: dict[str, str], path: Path) -> int:
    """Return 3, or 4 if the fourth dimension has one voxel."""
    stated = fields.get("NDims")
    if stated == "4" and fields.get("DimSize", "").split()[3:] == ["1"]:
        return 4
    if stated != "3":
        refuse(f"the image has {quoted(stated)} dimensions", path, "a CT has three")
    return 3


def _size(fields: dict[str, str], dimensions: int, path: Path) -> tuple[int, ...]:
    size = _numbers(fields, ("DimSize",), dimensions, path)[:3]
    if not all(map(float.is_integer, size)) or set(fields["DimSize"]) - set("+-0123456789 \t"):
        refuse(f"DimSize is {quoted(fields['DimSize'])}", path, "give whole numbers")
    return tuple(map(int, size))


def _type(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    name = fields.get("ElementType", "")
    scalar = name.removesuffix("_ARRAY")
    if scalar not in _TYPES:
        refuse(f"cannot read the CT (ElementType is {name[:60]!r})", path, "write a type that MetaImage has, MET_SHORT")
    type_ = np.dtype(_TYPES[scalar])
    if fields.get("ElementNumberOfChannels", "1") != "1" or name != scalar:
        refuse_type(f"vector of {8 * type_.itemsize}-bit numbers", path)
    return type_


def _numbers(
    fields: dict[str, str], names: tuple[str, ...], count: int, path: Path, default: Iterable[float] | None = None
) -> tuple[float, ...]:
    """Return the numbers of the one field with one of these names."""
    stated = [name for name in names if name in fields]
    if len(stated) > 1:
        refuse(f"both {stated[0]} and {stated[1]}", path, "keep one; they mean the same")
    if not stated:
        if default is None:
            refuse(f"no {names[0]}", path, "write the CT with its geometry")
        return tuple(default)
    # Not split(): ITK knows no other alphabets' blanks.
    texts = re.split(r"[ \t]+", fields[stated[0]])
    numbers = tuple(number for number in map(plain_number, texts) if number is not None)
    if not len(numbers) == len(texts) == count:
        refuse(f"{stated[0]} is {quoted(fields[stated[0]])}", path, f"give {count} finite numbers")
    return numbers


def _counts_from_end(fields: dict[str, str], path: Path) -> bool:
    """Return whether the voxels are the file's last bytes."""
    stated = fields.get("HeaderSize", "0")
    if stated not in ("0", "-1"):
        refuse("the voxels are not plain binary data", path, "write the CT without HeaderSize")
    return stated == "-1"


def _flag(fields: dict[str, str], key: str, path: Path) -> bool:
    value = fields.get(key, "False").lower()
    if value not in ("true", "false"):
        refuse(f"{key} is {value[:60]!r}", path, "write True or False")
    return value == "true"


def mask_file(
    mask: Array, origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float] = _WORLD_ALIGNED
) -> bytes:
    """Return the content of a compressed MetaImage file with a mask; ITK's writer is silent if the disk is full.

    Args:
        mask: bool (D, H, W), axes z, y, x.
        origin: World position x, y, z in mm (LPS) of the first voxel's centre.
        spacing: mm per voxel along x, y, z.
        direction: The row-major direction matrix, as in ITK.

    Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
    """
    voxels = zlib.compress(mask.astype(np.uint8).tobytes())
    columns = np.reshape(direction, (3, 3)).T.ravel().tolist()
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(voxels),
        "TransformMatrix": " ".join(f"{number:.17g}" for number in columns),
        "Offset": " ".join(map(repr, origin)),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, mask.shape[::-1])),
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    header = "".join(f"{name} = {value}\n" for name, value in fields.items())
    return header.encode() + voxels
