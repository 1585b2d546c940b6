"""Reading a folder with one DICOM series, its slices side by side in threads: decoding compressed ones takes long."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.cpu import available_cores
from nodulemc.dicom_content import check_pixel_data, frame_values
from nodulemc.dicom_folder import list_slices
from nodulemc.errors import ImageError
from nodulemc.headers import check_grid, voxel_type

_IMAGE_POSITION = "0020|0032"
_IMAGE_ORIENTATION = "0020|0037"
_PIXEL_SPACING = "0028|0030"
_RESCALE_INTERCEPT, _RESCALE_SLOPE = "0028|1052", "0028|1053"
_BITS_ALLOCATED = "0028|0100"
_SERIES_UID = "0020|000e"
_ACQUISITION = {"Modality": "0008|0060", "ContrastBolusAgent": "0018|0010", "SliceThickness": "0018|0050"}
# Slice positions are written with few decimals; a missing slice is off by a whole slice spacing.
_SLICE_TOLERANCE = 0.1
# Between slices, or what is stated and GDCM made of it: cosines have three decimals or more.
_COSINE_TOLERANCE, _SPACING_TOLERANCE_MM = 1e-3, 1e-4
_REMEDY = "export the series with its geometry; nodule coordinates mean nothing without it"


@dataclass(frozen=True)
class Series:
    """A DICOM series.

    Attributes:
        image: 3-D scalar image after rescaling: in HU where it is a CT.
        uid: SeriesInstanceUID.
        acquisition: what the first slice says of how it was made, by attribute name.
    """

    image: sitk.Image
    uid: str
    acquisition: dict[str, str]


def read_series(folder: Path) -> Series:
    """Read the only series of a folder, slices sorted along their normal.

    Raises:
        ImageError: the folder holds no series, several, or one with damaged, missing, doubled or sheared slices.
        OSError: a file cannot be read.
        RuntimeError: ITK cannot read a slice.
    """
    files = list_slices(folder)
    first = _open(files[0])
    check_grid(first, folder, slices=len(files) if len(files) > 1 else None, descending=True)
    image = _read_frames(first) if len(files) == 1 else _read_stack(first, files)
    check_grid(image, folder)
    stated = {name: text for name, tag in _ACQUISITION.items() if (text := _text(first, tag))}
    return Series(image, _text(first, _SERIES_UID), stated)


def _open(file: str) -> sitk.ImageFileReader:
    """A reader that has read a slice's header."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    """An attribute's value, empty where it is missing."""
    return reader.GetMetaData(tag).strip("\0 ") if reader.HasMetaDataKey(tag) else ""


def _read_frames(reader: sitk.ImageFileReader) -> sitk.Image:
    """The only file's frames as one image, whose geometry GDCM makes up where they state none or an uneven one."""
    file = reader.GetFileName()
    positions = frame_values(file, _IMAGE_POSITION)
    if len(positions) != reader.GetSize()[2]:
        raise ImageError(
            f"{len(positions)} positions for {reader.GetSize()[2]} frames", file, "export one file for each slice"
        )
    stated = {
        tag: set(frame_values(file, tag))
        for tag in (_IMAGE_ORIENTATION, _PIXEL_SPACING, _RESCALE_INTERCEPT, _RESCALE_SLOPE)
    }
    if any(len(values) > 1 for values in stated.values()):
        raise ImageError(
            "frames of different orientation, spacing or rescaling", file, "export one file for each slice"
        )
    image = _decode(reader)
    _check_positions([_numbers(position, 3) for position in positions], image, [file] * len(positions))
    _check_plane("".join(stated[_IMAGE_ORIENTATION]), "".join(stated[_PIXEL_SPACING]), reader, file)
    return image


def _read_stack(first: sitk.ImageFileReader, files: Sequence[str]) -> sitk.Image:
    """The slices as one image, spaced evenly from the first to the last."""
    voxels = np.empty((len(files), *first.GetSize()[1::-1]), voxel_type(first))
    positions = np.empty((len(files), 3))
    # ITK has one thread in a process that is one of many.
    with ThreadPoolExecutor(min(available_cores(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())) as pool:
        slices = pool.map(partial(_read_slice, first), files)
        for k, (values, positions[k]) in enumerate(slices):
            if values.dtype != voxels.dtype:  # GDCM takes the smallest type for each slice's rescaling
                voxels = voxels.astype(np.promote_types(voxels.dtype, values.dtype))
            voxels[k] = values[0]
    step = np.linalg.norm(positions[-1] - positions[0]) / (len(files) - 1)
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(first.GetOrigin())
    image.SetDirection(first.GetDirection())
    image.SetSpacing([*first.GetSpacing()[:2], float(step) or 1.0])
    _check_positions(positions, image, files)
    return image


def _read_slice(first: sitk.ImageFileReader, file: str) -> tuple[np.ndarray, np.ndarray]:
    """A slice's values (1, y, x), and the position that it states."""
    reader = _open(file)
    if reader.GetSize() != (*first.GetSize()[:2], 1):
        found = "×".join(map(str, reader.GetSize()))
        raise ImageError(f"the slice has size {found}, unlike the first", file, "export the series again")
    position = _text(reader, _IMAGE_POSITION)
    if not position:
        raise ImageError("no Image Position (Patient)", file, _REMEDY)
    _check_plane(_text(reader, _IMAGE_ORIENTATION), _text(reader, _PIXEL_SPACING), first, file)
    return sitk.GetArrayFromImage(_decode(reader)), _numbers(position, 3)


def _check_plane(orientation: str, spacing: str, first: sitk.ImageFileReader, file: str) -> None:
    """Refuse a slice's orientation or spacing unless ITK has read the same from the first slice.

    ITK puts the identity and 1 mm where they are missing or impossible.
    """
    axes = np.reshape(first.GetDirection(), (3, 3))[:, :2].T.ravel()
    # Of the pixel spacing, y comes first.
    for name, text, read, tolerance in (
        ("image orientation", orientation, axes, _COSINE_TOLERANCE),
        ("pixel spacing", spacing, first.GetSpacing()[1::-1], _SPACING_TOLERANCE_MM),
    ):
        if not np.allclose(_numbers(text, len(read)), read, rtol=0, atol=tolerance):
            unlike = "" if file == first.GetFileName() else ", unlike the first slice's"
            shown = text[:80].replace("\\", " ")
            raise ImageError(f"the {name} is {shown!r}{unlike}", file, _REMEDY)


def _decode(reader: sitk.ImageFileReader) -> sitk.Image:
    bits = _numbers(_text(reader, _BITS_ALLOCATED), 1)[0]
    check_pixel_data(reader.GetFileName(), math.prod(reader.GetSize()) * bits / 8)
    return reader.Execute()


def _check_positions(positions: Sequence[np.ndarray] | np.ndarray, image: sitk.Image, files: Sequence[str]) -> None:
    """Refuse slices that do not form the regular grid that the image claims to be."""
    for k, stated in enumerate(positions):
        off = np.linalg.norm(stated - image.TransformIndexToPhysicalPoint((0, 0, k)))
        if not off <= _SLICE_TOLERANCE * image.GetSpacing()[2]:
            raise ImageError(
                f"slice {k + 1} lies {off:.2f} mm from its place in an even stack",
                files[k],
                "a slice is missing or doubled, or the gantry was tilted; resample the series first",
            )


def _numbers(text: str, count: int) -> np.ndarray:
    """The ``count`` numbers of an attribute, NaN where it does not hold so many."""
    try:
        numbers = np.array([float(number) for number in text.split("\\")])
    except ValueError:
        numbers = np.empty(0)
    return numbers if len(numbers) == count else np.full(count, np.nan)
