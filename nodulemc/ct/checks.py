"""Checks of a CT's header that apply to all formats; each format's own checks are in its module.

ITK's readers trust a header: they crash on a MetaImage with a million dimensions, follow a data file's name to any file
of the machine, and use 1 mm if a spacing is 0, NaN or missing. So ITK reads TIFF and DICOM only, after checks; it never
sees a file in another format.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import SimpleITK as sitk

from nodulemc import limits
from nodulemc.ct.stored_voxels import ImageHeader
from nodulemc.errors import ImageError

DAMAGED = "the file is damaged or no image; copy it again, or name another"  # what to do if no header can be read
_NOTHING = 1e-30  # of a direction; over a whole scan it moves no voxel by the width of an atom


def check_path(path: Path) -> None:
    """Check that ITK can use a path: one that is not UTF-8 would end the process.

    Raises:
        ImageError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ImageError("the path is not UTF-8", path, "rename it") from error


def check_image_header(header: ImageHeader, path: Path) -> None:
    """Check the size and geometry in a file's header.

    Raises:
        ImageError: the image is too small or too large, or its geometry is impossible.
    """
    _check_size(header.size, header.voxel_type, path)
    check_geometry(header.spacing, header.origin, header.direction, path)


def itk_direction(direction: Sequence[float]) -> list[float]:
    """Return a direction matrix (9 numbers) that ITK can invert: its SVD turns the smallest numbers into NaN."""
    return [0.0 if abs(number) < _NOTHING else number for number in direction]


def check_bytes(promised: int, path: Path) -> None:
    """Check the number of bytes of voxels that a header promises.

    Raises:
        ImageError: It is more than a CT has.
    """
    if promised > limits.MAX_CT_BYTES:
        refuse(
            f"the header promises {promised} bytes of voxels",
            path,
            f"a CT has at most {limits.MAX_CT_BYTES >> 30} GiB; crop it to the lungs",
        )


def check_grid(grid: sitk.Image | sitk.ImageFileReader, path: Path) -> None:
    """Check the size, voxel type and geometry of an image, or of a reader that has read an image's information.

    Args:
        grid: The image or reader.
        path: Its file, for messages.

    Raises:
        ImageError: It is not a 3-D scalar image, is too large, or its geometry is impossible.
    """
    either: Any = grid  # mypy's exception for SimpleITK's untyped methods does not hold of a union's
    kind = sitk.GetPixelIDValueAsString(either.GetPixelID())
    components = grid.GetNumberOfComponentsPerPixel() if isinstance(grid, sitk.Image) else grid.GetNumberOfComponents()
    if components != 1 or not kind[0].isdigit():  # "16-bit signed integer", not "complex of 32-bit float"
        refuse_type(kind, path)
    type_ = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], either.GetPixelID())).dtype
    _check_size(either.GetSize(), type_, path)
    check_geometry(either.GetSpacing(), either.GetOrigin(), either.GetDirection(), path)


def check_geometry(spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float], path: Path) -> None:
    """Check spacing, origin and direction matrix (mm, LPS).

    Raises:
        ImageError: they are impossible.
    """
    low, high = limits.SPACING_MM
    if not all(low <= mm <= high for mm in spacing):
        refuse(f"the voxel spacing is {in_numbers(spacing)} mm", path, f"write it in mm, each {low:g} to {high:g}")
    if not all(abs(mm) <= limits.MAX_COORDINATE_MM for mm in origin):
        refuse(f"the origin is {in_numbers(origin)} mm", path, "write the scan's position in mm")
    if _deviation_from_orthonormal(direction) > limits.MAX_DIRECTION_ERROR:
        refuse(
            f"the direction matrix is {in_numbers(direction)}",
            path,
            "its columns must be three unit vectors at right angles; resample a sheared scan",
        )


def refuse(what: str, path: Path, remedy: str) -> NoReturn:
    """Raise an ImageError with these words."""
    raise ImageError(what, path, remedy)


def refuse_type(kind: str, path: Path) -> NoReturn:
    """Raise the ImageError for voxels that are not real numbers."""
    refuse(f"the voxels are of type {kind}", path, "a CT has one real number per voxel")


def refuse_size(size: Sequence[int], path: Path) -> NoReturn:
    """Raise the ImageError for an image with too few voxels or too many dimensions."""
    refuse(f"the image has size {'×'.join(map(str, size))}", path, "a CT has three dimensions with 2 or more voxels")


def quoted(value: str | None) -> str:
    """Return a header's value for messages."""
    return "no" if value is None else repr(value[:60])


def in_numbers(values: Iterable[float]) -> str:
    """Return numbers for messages."""
    return " ".join(f"{value:g}" for value in values)


def _check_size(size: Sequence[int], type_: np.dtype[Any], path: Path) -> None:
    if len(size) != 3 or min(size) < 2:
        refuse_size(size, path)
    check_bytes(math.prod(size) * type_.itemsize, path)


def _deviation_from_orthonormal(direction: Sequence[float]) -> float:
    """Return the largest deviation of D·Dᵀ from the identity; infinite if an entry is not finite."""
    rows = [direction[k : k + 3] for k in (0, 3, 6)]
    products = [
        abs(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) - (i == j)) for i in range(3) for j in range(3)
    ]
    return max(products) if all(map(math.isfinite, products)) else math.inf
