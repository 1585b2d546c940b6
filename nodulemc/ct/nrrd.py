"""NRRD files: reading and checking the header, and locating the voxels.

Source: https://teem.sourceforge.net/nrrd/format.html
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ct.checks import DAMAGED, quoted, refuse, refuse_size, refuse_type
from nodulemc.ct.scan_ids import read_ids
from nodulemc.ct.stored_voxels import ByteOrder, ImageHeader, StoredVoxels
from nodulemc.util.text import plain_number

SUFFIXES = (".nrrd",)
_HEADER = 1 << 20
_MOST_DIMENSIONS = 16  # as in teem
_LPS, _RAS, _LAS = (1, 1, 1), (-1, -1, 1), (1, -1, 1)
_SPACES = {
    "left-posterior-superior": _LPS, "lps": _LPS,
    "right-anterior-superior": _RAS, "ras": _RAS,
    "left-anterior-superior": _LAS, "las": _LAS,
}  # fmt: skip
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {name: np.dtype(type_) for type_, names in _TYPES.items() for name in names}
_BYTE_ORDERS: dict[str | None, ByteOrder] = {"little": "<", "big": ">"}
_COMPRESSED = {"raw": False, "gzip": True, "gz": True}
_SKIPS = ("line skip", "lineskip", "byte skip", "byteskip")
_VECTOR = r"\([^()]*\)"


@dataclass(frozen=True)
class Layers:
    """Several images on one grid in one file, with their voxels in turn.

    Attributes:
        image: The header of each image; ``stored`` describes all of them as one.
        count: The number of images.
        keys: The values of the header's custom keys, such as 3D Slicer's names of segments.
    """

    image: ImageHeader
    count: int
    keys: dict[str, str]

    @property
    def stored(self) -> ImageHeader:
        """All images as one: for each voxel of an image along x, it has one of every image."""
        x, y, z = self.image.size
        return replace(self.image, size=(self.count * x, y, z))


def read_header(path: Path) -> ImageHeader:
    """Read the header of a .nrrd.

    Raises:
        ImageError: the header is malformed, states no geometry in mm, or its voxels are in another file or no 3-D
            scalar image in plain or gzipped binary data.
    """
    layers = read_layers(path)
    if layers.count != 1:
        refuse_size((layers.count, *layers.image.size), path)
    return layers.image


def read_layers(path: Path) -> Layers:
    """Read the header of a .nrrd with one or more images; with several, their number is the first of its sizes.

    Raises:
        ImageError: as ``read_header``, but for several images.
    """
    fields, keys, end = _read_fields(path)
    type_ = _type(fields, path)
    compressed = _compressed(fields, path)
    count, size, vectors, origin = _geometry(fields, path)
    matrix = vectors.T
    steps = np.linalg.norm(matrix, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # the spacing's check refuses a step of 0
        direction = matrix / steps
    image = ImageHeader(
        size=size,
        spacing=tuple(steps.tolist()),
        origin=tuple(origin.tolist()),
        direction=tuple(direction.ravel().tolist()),
        stored_type=type_,
        voxels=StoredVoxels(path, end, compressed, byte_order=_byte_order(fields, type_, path)),
        ids=read_ids(path, end),
    )
    return Layers(image, count, keys)


def _read_fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the header's fields in lower case, its custom keys, and the offset of the first byte after it."""
    with path.open("rb") as file:
        head = re.match(rb"(?s)(NRRD000\d\r?\n.*?)\r?\n\r?\n", file.read(_HEADER))
    if head is None:
        refuse("cannot read the CT (no NRRD header followed by voxels)", path, DAMAGED)
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in head.group(1).decode("utf-8", "replace").splitlines()[1:]:
        key, separator, value = line.partition(":")
        if line.startswith("#"):
            continue
        if value.startswith("="):
            keys[key] = value[1:].strip()
            continue
        key = key.strip().lower()
        if not separator or key in fields:
            refuse(f"the header's line {quoted(line)} is malformed or repeated", path, "write the CT again")
        fields[key] = value.strip().lower()
    if "data file" in fields or "datafile" in fields:
        refuse("the voxels are in another file", path, "write header and voxels into one file")
    return fields, keys, head.end()


def _type(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    name = fields.get("type")
    if name not in _TYPE_OF:
        refuse_type(quoted(name), path)
    return _TYPE_OF[name]


def _byte_order(fields: dict[str, str], type_: np.dtype[Any], path: Path) -> ByteOrder:
    stated = fields.get("endian", "little" if type_.itemsize == 1 else None)
    if stated not in _BYTE_ORDERS:
        refuse(f"the endian is {quoted(stated)}", path, "write little or big")
    return _BYTE_ORDERS[stated]


def _compressed(fields: dict[str, str], path: Path) -> bool:
    encoding = fields.get("encoding")
    if encoding not in _COMPRESSED or any(fields.get(skip, "0") != "0" for skip in _SKIPS):
        refuse("the voxels are not plain or gzipped binary data", path, "write the CT with encoding raw or gzip")
    return _COMPRESSED[encoding]


def _geometry(fields: dict[str, str], path: Path) -> tuple[int, tuple[int, ...], Array, Array]:
    """Return the number of images, their size (x, y, z), the steps (3, 3) as rows and the origin (3,) in mm, LPS."""
    coordinates, to_lps = _space(fields, path)
    size = _size(fields, path)
    stated = fields.get("space directions", "")
    axes = re.findall(rf"none|{_VECTOR}", stated) if re.fullmatch(rf"(?:(?:none|{_VECTOR})\s*)+", stated) else []
    vectors = [(0.0,) * coordinates if axis == "none" else _vector(axis, coordinates) for axis in axes]
    in_space = [k for k, vector in enumerate(vectors) if vector is None or any(vector[:3])]
    steps = [vector for k in in_space if (vector := vectors[k]) is not None]
    is_grid = len(vectors) == len(size) and len(in_space) == len(steps) == 3
    if not is_grid or any(any(step[3:]) for step in steps):
        refuse(f"the space directions are {quoted(fields.get('space directions'))}", path, "give three vectors")
    count = 1 if 0 in in_space else size[0]
    if count < 1 or any(n != 1 for k, n in enumerate(size) if k not in (0, *in_space)):
        refuse_size(size, path)
    origin = _vector(fields["space origin"], coordinates)
    if origin is None:
        refuse(f"the space origin is {quoted(fields['space origin'])}", path, "give one vector")
    matrix = np.array(steps)[:, :3] * to_lps
    return count, tuple(size[k] for k in in_space), matrix, np.array(origin[:3]) * to_lps


def _space(fields: dict[str, str], path: Path) -> tuple[int, tuple[int, ...]]:
    """Return the number of coordinates of a vector (the fourth is time), and the signs of the first three for LPS."""
    space = fields.get("space", "")
    timed = space.endswith(("-time", "t"))
    to_lps = _SPACES.get(space.removesuffix("-time").removesuffix("t") if timed else space)
    if fields.get("space dimension") == "4" and not space:  # ITK writes a 4-D image so, and means LPS
        timed, to_lps = True, _LPS
    if to_lps is None or "space origin" not in fields:
        refuse("no patient coordinates", path, "write space, space directions and space origin")
    if set(re.findall(r'"([^"]*)"', fields.get("space units", ""))[:3]) - {"mm"}:
        refuse(f"the space units are {fields['space units']}", path, "write the CT in mm")
    return (4 if timed else 3), to_lps


def _size(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    """Return the voxels along all axes."""
    dimension, sizes = fields.get("dimension", ""), fields.get("sizes", "")
    if not re.fullmatch(r"\d\d?", dimension, re.ASCII) or not 3 <= int(dimension) <= _MOST_DIMENSIONS:
        refuse(f"the image has {quoted(fields.get('dimension'))} dimensions", path, "a CT has three")
    if not re.fullmatch(r"\d{1,18}(?: +\d{1,18})*", sizes, re.ASCII) or len(sizes.split()) != int(dimension):
        refuse(f"the sizes are {quoted(fields.get('sizes'))}", path, f"give {dimension} whole numbers")
    return tuple(map(int, sizes.split()))


def _vector(text: str, coordinates: int) -> tuple[float, ...] | None:
    """Return the numbers of a vector (x,y,z), or None if it is not one."""
    if not re.fullmatch(_VECTOR, text):
        return None
    numbers = [plain_number(number) for number in text[1:-1].split(",")]
    known = tuple(number for number in numbers if number is not None)
    return known if len(known) == len(numbers) == coordinates else None
