"""NIfTI-1 and NIfTI-2 files: reading and checking the header, and locating the voxels.

ITK never sees such a file. If a slope is set, it would read the voxels of any other file with the same stem. It uses
the qform where others use the sform, and it reads a cut or corrupt .nii.gz as zeros.
Source: https://nifti.nimh.nih.gov (nifti1.h, nifti2.h). If sform and qform are both set, the sform is read, as in
nibabel; the two must agree.
"""

import gzip
import html
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ct.checks import DAMAGED, in_numbers, refuse, refuse_size, refuse_type
from nodulemc.ct.stored_voxels import NOT_RESCALED, ByteOrder, ImageHeader, StoredVoxels
from nodulemc.errors import ImageError
from nodulemc.limits import MAX_DIRECTION_ERROR, MAX_DISAGREEMENT_MM

SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class _Layout:
    """The header of one version.

    Attributes:
        magic: The value of the magic field.
        fields: The fields that are used.
        first_offset: The first offset of voxels. By the standard, smaller offsets mean this one, but ITK and others
            read them differently.
    """

    magic: bytes
    fields: np.dtype[Any]
    first_offset: int


def _fields(length: int, **places: tuple[object, int]) -> np.dtype[Any]:
    """Return a header's fields, each as a type and an offset."""
    types, offsets = zip(*places.values(), strict=True)
    return np.dtype({"names": list(places), "formats": list(types), "offsets": list(offsets), "itemsize": length})


_LAYOUTS = (
    _Layout(
        b"n+1",
        _fields(
            348,
            dim=(("i2", 8), 40), datatype=("i2", 70), pixdim=(("f4", 8), 76), vox_offset=("f4", 108),
            scaling=(("f4", 2), 112), xyzt_units=("u1", 123), qform_code=("i2", 252), sform_code=("i2", 254),
            quaternion=(("f4", 3), 256), qoffset=(("f4", 3), 268), sform=(("f4", (3, 4)), 280), magic=("S4", 344),
        ),
        352,
    ),
    _Layout(
        b"n+2\0\r\n\x1a\n",
        _fields(
            540,
            dim=(("i8", 8), 16), datatype=("i2", 12), pixdim=(("f8", 8), 104), vox_offset=("i8", 168),
            scaling=(("f8", 2), 176), xyzt_units=("i4", 500), qform_code=("i4", 344), sform_code=("i4", 348),
            quaternion=(("f8", 3), 352), qoffset=(("f8", 3), 376), sform=(("f8", (3, 4)), 400), magic=("S8", 4),
        ),
        544,
    ),
)  # fmt: skip
_LONGEST = max(layout.fields.itemsize for layout in _LAYOUTS)
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_OTHER_TYPES = {32: "complex of 32-bit float", 1792: "complex of 64-bit float", 128: "RGB", 2304: "RGBA"}
_FORM_CODES = range(6)
_UNITS = {1: "metres", 3: "micrometres"}
_UNIT_BITS = 7
_ROUNDED_QUATERNION = 3  # units of its last place, as in nibabel
_LAST_OFFSET = 1 << 27  # exact in 32 bits of floating point
_MOST_PADDING = 1 << 20  # what may stand behind compressed voxels
_LONGEST_TABLE = 1 << 20
_LABEL = re.compile(r'<Label\b[^<>]*\bKey="(\d{1,9})"[^<>]*>(?:<!\[CDATA\[([^<>]*)\]\]>|([^<>]*))</Label>', re.ASCII)
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def read_header(path: Path) -> ImageHeader:
    """Read the header of a .nii or .nii.gz.

    Raises:
        ImageError: the file does not begin with a header of one file with header and voxels, or the header states no
            geometry, an impossible one, two, or one in other units than mm.
    """
    layout, byte_order, raw = _raw_header(path)
    size = _size(raw, path)
    affine = _TO_LPS @ _affine(raw, size, path)
    return ImageHeader(
        size=size,
        spacing=tuple(_steps(affine).tolist()),
        origin=tuple(affine[:, 3].tolist()),
        direction=tuple(_direction(affine).ravel().tolist()),
        stored_type=_stored_type(raw, path),
        voxels=_locate(raw, layout.first_offset, byte_order, path),
    )


def read_label_names(path: Path) -> dict[int, str]:
    """Return the names of a label image's numbers; empty if the file has none.

    TotalSegmentator and Connectome Workbench write them in a table after the header.

    Raises:
        ImageError: as ``read_header``.
    """
    voxels = read_header(path).voxels
    table = _head(path, min(voxels.start + voxels.skip, _LONGEST_TABLE)).decode("utf-8", "replace")
    return {int(key): data or html.unescape(text) for key, data, text in _LABEL.findall(table) if data or text}


def _raw_header(path: Path) -> tuple[_Layout, ByteOrder, np.void]:
    """Return the header's version, its byte order and its fields."""
    head = _head(path)
    orders: tuple[ByteOrder, ...] = ("<", ">")
    for layout, order in product(_LAYOUTS, orders):
        fields = layout.fields.newbyteorder(order)
        raw = np.frombuffer(head, fields, 1)[0]
        if head[:4] == np.array(fields.itemsize, f"{order}i4").tobytes() and raw["magic"] == layout.magic:
            return layout, order, raw
    refuse("cannot read the CT (no NIfTI header)", path, "give a .nii or .nii.gz that holds header and voxels")


def _head(path: Path, length: int = _LONGEST) -> bytes:
    """Return the first bytes, padded with zeros."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(length).ljust(length, b"\0")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ImageError(f"cannot read the CT ({error})", path, DAMAGED) from error


def _size(raw: np.void, path: Path) -> tuple[int, ...]:
    """Return the voxels along x, y, z; further dimensions must have one voxel."""
    dimensions, *lengths = raw["dim"].tolist()
    if not 1 <= dimensions <= 7:
        refuse(f"dim[0] is {dimensions}", path, "write the number of dimensions, 3")
    size = tuple(lengths[:dimensions])
    if dimensions < 3 or set(size[3:]) - {1}:
        refuse_size(size, path)
    return size[:3]


def _stored_type(raw: np.void, path: Path) -> np.dtype[Any]:
    code = int(raw["datatype"])
    if code not in _TYPES:
        refuse_type(_OTHER_TYPES.get(code, f"{code} in NIfTI"), path)
    return np.dtype(_TYPES[code])


def _locate(raw: np.void, first_offset: int, byte_order: ByteOrder, path: Path) -> StoredVoxels:
    offset = float(raw["vox_offset"])
    if not (first_offset <= offset <= _LAST_OFFSET and offset.is_integer()):
        refuse(f"vox_offset is {offset:g}", path, f"write a whole number, {first_offset} or more")
    compressed = path.name.lower().endswith(".gz")
    start, skip = (0, int(offset)) if compressed else (int(offset), 0)
    return StoredVoxels(path, start, compressed, skip, _MOST_PADDING, byte_order, _rescaling(raw, path))


def _rescaling(raw: np.void, path: Path) -> tuple[float, float]:
    slope, intercept = raw["scaling"].tolist()
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        refuse(f"scl_slope is {slope:g} and scl_inter {intercept:g}", path, "write finite numbers, or 0 for none")
    if slope:
        return slope, intercept
    if intercept:  # some readers add it, others do not
        refuse(f"scl_slope is 0 and scl_inter {intercept:g}", path, "write scl_slope 1, or scl_inter 0")
    return NOT_RESCALED


def _affine(raw: np.void, size: Sequence[int], path: Path) -> Array:
    """Return the affine from index to world in mm, RAS: float64 (3, 4)."""
    _check_numbers(raw, path)
    codes = {name: int(raw[f"{name}_code"]) for name in ("qform", "sform")}
    for name, code in codes.items():
        if code not in _FORM_CODES:  # nibabel takes it for unset, ITK for set
            refuse(f"{name}_code is {code}", path, f"write {_FORM_CODES[0]} to {_FORM_CODES[-1]}")
    if not any(codes.values()):
        refuse("neither qform nor sform is set", path, "nodule coordinates mean nothing without patient coordinates")
    if not codes["sform"]:
        return _qform(raw, path)
    sform: Array = raw["sform"].astype(float)
    _check_spacing(sform, raw, size, path)
    if codes["qform"]:
        _check_qform(_qform(raw, path, sform), sform, size, path)
    return sform


def _check_numbers(raw: np.void, path: Path) -> None:
    spacing = raw["pixdim"][1:4].tolist()
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        refuse(f"the voxel spacing is {in_numbers(spacing)}", path, "write three finite numbers above 0")
    if not all(np.isfinite(raw[name]).all() for name in ("quaternion", "qoffset", "sform")):
        refuse("the orientation holds NaN or infinite numbers", path, "write the CT with its geometry")
    unit = int(raw["xyzt_units"]) & _UNIT_BITS
    if unit in _UNITS:  # some readers convert them, others do not
        refuse(f"the units are {_UNITS[unit]}", path, "write it in mm, xyzt_units 2")


def _qform(raw: np.void, path: Path, sform: Array | None = None) -> Array:
    """Return the affine (3, 4) of the quaternion and pixdim; of equally rounded ones, the nearest to the sform."""
    b, c, d = raw["quaternion"].tolist()
    rest = 1 - (b * b + c * c + d * d)
    if rest < -MAX_DIRECTION_ERROR:
        refuse(f"the qform's quaternion {in_numbers((b, c, d))} is longer than 1", path, "write the CT again")
    handedness = float(raw["pixdim"][0])
    if handedness < 0 and handedness != -1:  # nibabel takes it for 1, ITK for -1
        refuse(f"the qform's pixdim[0] is {handedness:g}", path, "write 1 or -1")
    steps = raw["pixdim"][1:4].astype(float) * (1, 1, -1 if handedness < 0 else 1)
    rounding = _ROUNDED_QUATERNION * np.finfo(raw["quaternion"].dtype.newbyteorder("=")).eps
    if sform is None:
        a = math.sqrt(rest) if rest > rounding else 0.0
    else:
        a = np.clip(_first_of_quaternion(_direction(sform) * np.sign(steps), b, c, d), *_roots(rest, rounding))
    length = a * a + 1 - rest
    rotation = np.eye(3) + 2 / length * np.array(
        [
            [-c * c - d * d, b * c - a * d, b * d + a * c],
            [b * c + a * d, -b * b - d * d, c * d - a * b],
            [b * d - a * c, c * d + a * b, -b * b - c * c],
        ]
    )
    return np.column_stack([rotation * steps, raw["qoffset"].astype(float)])


def _roots(square: float, error: float) -> tuple[float, float]:
    """Return the bounds of the root of a square that is known with this error.

    They are 0 and 6e-4 for the rounded numbers of a turn by 180°.
    """
    return math.sqrt(max(square - error, 0.0)), math.sqrt(max(square + error, 0.0))


def _first_of_quaternion(r: Array, b: float, c: float, d: float) -> float:
    """Return the number a that completes the quaternion of a rotation (3, 3)."""
    skew = b * (r[2, 1] - r[1, 2]) + c * (r[0, 2] - r[2, 0]) + d * (r[1, 0] - r[0, 1])
    return float(skew / max(4 * (b * b + c * c + d * d), np.finfo(float).tiny))


def _check_spacing(sform: Array, raw: np.void, size: Sequence[int], path: Path) -> None:
    """Refuse a pixdim, which ITK and others use as spacing, that differs from the sform's."""
    spacing, steps = raw["pixdim"][1:4].astype(float), _steps(sform)
    if (abs(spacing - steps) * size).max() > MAX_DISAGREEMENT_MM:
        refuse(
            f"the spacing is {in_numbers(spacing)} by pixdim, {in_numbers(steps)} by the sform",
            path,
            "make the two agree",
        )


def _check_qform(qform: Array, sform: Array, size: Sequence[int], path: Path) -> None:
    """Refuse two geometries that place a corner of the scan differently."""
    corners = np.array(
        list(
            product(
                *(
                    (
                        -0.5,
                        n - 0.5,
                    )
                    for n in size
                )
            )
        )
    )
    apart = np.linalg.norm(np.column_stack([corners, np.ones(len(corners))]) @ (qform - sform).T, axis=1).max()
    if not apart <= MAX_DISAGREEMENT_MM:
        refuse(
            f"qform and sform place a corner of the scan {apart:.2f} mm apart",
            path,
            "find out which is right, and write both so or set the other's code to 0",
        )


def _steps(affine: Array) -> Array:
    """Return mm per voxel (3,)."""
    steps: Array = np.linalg.norm(affine[:, :3], axis=0)
    return steps


def _direction(affine: Array) -> Array:
    """Return the three axes' unit vectors as columns (3, 3), NaN where a step is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):  # the check of the spacing refuses it
        return affine[:, :3] / _steps(affine)
