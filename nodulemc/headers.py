"""What a CT file's header says, checked before ITK acts on it.

ITK's readers take a header's word: they crash on a MetaImage of a million dimensions, follow a data file's name to
any file of the machine, and put 1 mm where a spacing is 0, NaN or missing.
"""

import math
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import SimpleITK as sitk

from nodulemc import limits, meta_image, nifti
from nodulemc.errors import ImageError
from nodulemc.plain_numbers import plain_number
from nodulemc.stored_voxels import StoredVoxels
from nodulemc.tiff_pages import check_pages

_NRRD_HEADER = 1 << 16
_NRRD_SPACES = {
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"
}  # fmt: skip
_META_NUMBERS = {  # how many numbers each field holds; the lines of one tuple mean the same to ITK
    ("DimSize",): 3,
    ("ElementSpacing",): 3,
    ("ElementSize",): 3,
    ("Offset", "Position", "Origin"): 3,
    ("TransformMatrix", "Rotation", "Orientation"): 9,
    ("CenterOfRotation",): 3,
}
# Of NIfTI's two spacings, relative: 0.3 mm across a chest; files round theirs to four decimals or more.
_SPACING_TOLERANCE = 1e-3


def check_path(path: Path) -> None:
    """Check that ITK can be given a path: in C++, one that is not UTF-8 ends the process.

    Raises:
        ImageError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ImageError("the path is not UTF-8", path, "rename it") from error


def check_header(path: Path) -> tuple[str, StoredVoxels | None]:
    """Check a CT file's header by the file's suffix.

    Returns:
        The name of the ITK reader for this suffix (ITK's own choice would go by the content), and where the voxels
        are; None where that reader finds damaged ones itself.

    Raises:
        ImageError: the header is malformed, states no geometry, or names another file outside its folder.
    """
    name = path.name.lower()
    if name.endswith(meta_image.SUFFIXES):
        _check_meta_image(path)
        return "MetaImageIO", meta_image.locate_voxels(path)
    if name.endswith(nifti.SUFFIXES):
        _check_nifti(path)
        return "NiftiImageIO", nifti.locate_voxels(path)
    if name.endswith(".nrrd"):
        _check_nrrd(path)
        return "NrrdImageIO", None
    check_pages(path)
    return "TIFFImageIO", None


def check_grid(
    grid: sitk.Image | sitk.ImageFileReader, path: Path, *, slices: int | None = None, descending: bool = False
) -> None:
    """Check the size, voxel type and geometry of an image, or of a reader that has read an image's information.

    Args:
        grid: the image or reader.
        path: where it comes from.
        slices: how many files of this size form the scan; None where the grid is the whole scan.
        descending: accept a negative slice spacing, which GDCM tells of frames against their normal and of slices that
            state one; the image itself has a positive one.

    Raises:
        ImageError: it is no 3-D scalar image, is too large, or its geometry is impossible.
    """
    size = grid.GetSize()
    if grid.GetDimension() != 3 or (min(size) < 2 and slices is None):
        _refuse(
            f"the image has size {'×'.join(map(str, size))}", path, "a CT has three dimensions with 2 or more voxels"
        )
    kind = sitk.GetPixelIDValueAsString(grid.GetPixelID())
    components = grid.GetNumberOfComponentsPerPixel() if isinstance(grid, sitk.Image) else grid.GetNumberOfComponents()
    if components != 1 or not kind[0].isdigit():  # "16-bit signed integer", not "complex of 32-bit float"
        _refuse(f"the voxels are of type {kind}", path, "a CT has one real number per voxel")
    promised = math.prod(size) * (slices or 1) * voxel_type(grid).itemsize
    if promised > limits.MAX_CT_BYTES:
        _refuse(
            f"the header promises {promised} bytes of voxels",
            path,
            f"a CT has at most {limits.MAX_CT_BYTES >> 30} GiB; crop it to the lungs",
        )
    low, high = limits.SPACING_MM
    x, y, z = grid.GetSpacing()
    if not all(low <= mm <= high for mm in (x, y, abs(z) if descending else z)):
        _refuse(
            f"the voxel spacing is {_numbers(grid.GetSpacing())} mm",
            path,
            f"write it in mm, each {low:g} to {high:g}",
        )
    if not all(abs(mm) <= limits.MAX_COORDINATE_MM for mm in grid.GetOrigin()):
        _refuse(f"the origin is {_numbers(grid.GetOrigin())} mm", path, "write the scan's position in mm")
    if _deviation_from_orthonormal(grid.GetDirection()) > limits.MAX_DIRECTION_ERROR:
        _refuse(
            f"the direction matrix is {_numbers(grid.GetDirection())}",
            path,
            "its columns must be three unit vectors at right angles; resample a sheared scan",
        )


def voxel_type(grid: sitk.Image | sitk.ImageFileReader) -> np.dtype:
    """The type of a scalar image's voxels."""
    return sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], grid.GetPixelID())).dtype


def _check_meta_image(path: Path) -> None:
    fields, _ = meta_image.read_header(path)
    if fields.get("NDims") != "3":
        _refuse(f"the image has {_quoted(fields.get('NDims'))} dimensions", path, "a CT has three")
    if fields.get("BinaryData", "").lower() != "true" or fields.get("HeaderSize", "0") not in ("0", "-1"):
        _refuse("the voxels are not plain binary data", path, "write the CT with BinaryData = True and no HeaderSize")
    if "ElementSpacing" not in fields and "ElementSize" not in fields:
        _refuse("no ElementSpacing", path, "write the CT with its geometry")
    for names, count in _META_NUMBERS.items():
        stated = [name for name in names if name in fields]
        if len(stated) > 1:
            _refuse(f"both {stated[0]} and {stated[1]}", path, "keep one; they mean the same")
        for name in stated:
            # Not split(): ITK knows no other alphabets' blanks.
            numbers = [plain_number(text) for text in re.split(r"[ \t]+", fields[name])]
            if len(numbers) != count or None in numbers:
                _refuse(f"{name} is {_quoted(fields[name])}", path, f"give {count} finite numbers")


def _check_nifti(path: Path) -> None:
    header = nifti.read_header(path)
    if not all(math.isfinite(mm) and mm > 0 for mm in header.pixdim):
        _refuse(f"the voxel spacing is {_numbers(header.pixdim)}", path, "write three finite numbers above 0")
    if not all(map(math.isfinite, header.quaternion + header.affine)):
        _refuse("the orientation holds NaN or infinite numbers", path, "write the CT with its geometry")
    if not any(code > 0 for code in header.form_codes):
        _refuse("neither qform nor sform is set", path, "nodule coordinates mean nothing without patient coordinates")
    steps = tuple(math.hypot(*header.affine[axis::4]) for axis in range(3))
    if header.form_codes[1] > 0 and not all(
        math.isclose(step, mm, rel_tol=_SPACING_TOLERANCE) for step, mm in zip(steps, header.pixdim, strict=True)
    ):  # ITK goes by pixdim, others by the affine
        _refuse(
            f"the spacing is {_numbers(header.pixdim)} by pixdim, {_numbers(steps)} by the sform",
            path,
            "make the two agree",
        )
    slope, intercept = header.rescaling
    if slope == 0 and abs(intercept) > 0:  # ITK adds it, others do not
        _refuse(f"scl_slope is 0 and scl_inter {intercept:g}", path, "write scl_slope 1, or scl_inter 0")


def _check_nrrd(path: Path) -> None:
    with path.open("rb") as file:
        head = re.match(rb"(?s)(NRRD000\d\r?\n.*?)\r?\n\r?\n", file.read(_NRRD_HEADER))
    if head is None:
        _refuse("cannot read the CT (no NRRD header followed by voxels)", path, "the file is damaged or no image")
    fields: dict[str, str] = {}
    for line in head.group(1).decode("utf-8", "replace").splitlines()[1:]:
        key, separator, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):  # a comment, or a key of somebody's own
            continue
        key = key.strip().lower()
        if not separator or key in fields:
            _refuse(f"the header's line {_quoted(line)} is malformed or repeated", path, "write the CT again")
        fields[key] = value.strip().lower()
    if "data file" in fields or "datafile" in fields:
        _refuse("the voxels are in another file", path, "write header and voxels into one file")
    if fields.get("dimension") != "3":
        _refuse(f"the image has {_quoted(fields.get('dimension'))} dimensions", path, "a CT has three")
    if fields.get("encoding") not in ("raw", "gzip", "gz") or {"line skip", "lineskip", "byte skip", "byteskip"} & {
        key for key, value in fields.items() if value != "0"
    }:
        _refuse("the voxels are not plain or gzipped binary data", path, "write the CT with encoding raw or gzip")
    if fields.get("space") not in _NRRD_SPACES or "space origin" not in fields:
        _refuse("no patient coordinates", path, "write space, space directions and space origin")
    if set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm"}:
        _refuse(f"the space units are {fields['space units']}", path, "write the CT in mm")
    if not re.fullmatch(r"\d+(?: +\d+){2}", fields.get("sizes", ""), re.ASCII):
        _refuse(f"the sizes are {_quoted(fields.get('sizes'))}", path, "give three whole numbers")
    if not _are_vectors(fields.get("space directions", ""), 3):
        _refuse(f"the space directions are {_quoted(fields.get('space directions'))}", path, "give three vectors")
    if not _are_vectors(fields["space origin"], 1):
        _refuse(f"the space origin is {_quoted(fields['space origin'])}", path, "give one vector")


def _are_vectors(text: str, count: int) -> bool:
    """Whether ``text`` is so many vectors (x,y,z)."""
    if not re.fullmatch(rf"(?:\([^()]*\) *){{{count}}}", text):
        return False
    vectors = [vector.split(",") for vector in re.findall(r"\(([^()]*)\)", text)]
    return all(len(vector) == 3 and None not in map(plain_number, vector) for vector in vectors)


def _deviation_from_orthonormal(direction: tuple[float, ...]) -> float:
    """Largest deviation of D·Dᵀ from the identity; infinite where an entry is not finite."""
    rows = [direction[k : k + 3] for k in (0, 3, 6)]
    products = [
        abs(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) - (i == j)) for i in range(3) for j in range(3)
    ]
    return max(products) if all(map(math.isfinite, products)) else math.inf


def _refuse(what: str, path: Path, remedy: str) -> NoReturn:
    raise ImageError(what, path, remedy)


def _quoted(value: str | None) -> str:
    return "no" if value is None else repr(value[:60])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
