"""Reading a folder with one DICOM series, its slices side by side in threads: decoding compressed ones takes long."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc import limits
from nodulemc.cpu import available_cores
from nodulemc.errors import ImageError
from nodulemc.headers import check_grid, voxel_type

_IMAGE_POSITION = "0020|0032"
_PIXEL_SPACING = "0028|0030"
_SERIES_UID = "0020|000e"
_ACQUISITION = {"Modality": "0008|0060", "ContrastBolusAgent": "0018|0010", "SliceThickness": "0018|0050"}
# Slice positions are written with few decimals; a missing slice is off by a whole slice spacing.
_SLICE_TOLERANCE = 0.1


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
        ImageError: the folder holds no series, several, or one with missing, doubled or sheared slices.
        RuntimeError: ITK cannot read a slice.
    """
    files = _list_slices(folder)
    first = _open(files[0])
    check_grid(first, folder, slices=len(files))
    image = first.Execute() if len(files) == 1 else _read_stack(first, files, folder)
    check_grid(image, folder)
    stated = {name: text for name, tag in _ACQUISITION.items() if (text := _text(first, tag))}
    return Series(image, _text(first, _SERIES_UID), stated)


def _list_slices(folder: Path) -> Sequence[str]:
    if sum(1 for _ in folder.iterdir()) > limits.MAX_DICOM_FILES:
        raise ImageError(f"more than {limits.MAX_DICOM_FILES} files", folder, "give a folder that holds one series")
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series ({', '.join(series)})" if series else "no DICOM series"
        raise ImageError(found, folder, "give a folder that holds exactly one series")
    return sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])


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


def _read_stack(first: sitk.ImageFileReader, files: Sequence[str], folder: Path) -> sitk.Image:
    """The slices as one image, spaced evenly from the first to the last."""
    size = (len(files), *first.GetSize()[1::-1])
    voxels = np.empty(size, voxel_type(first))
    spacing = _text(first, _PIXEL_SPACING)
    # ITK puts 1 mm where it is missing or impossible; y comes first.
    if not np.allclose(_numbers(spacing, 2), first.GetSpacing()[1::-1]):
        raise ImageError(f"the pixel spacing is {spacing[:40]!r}", files[0], "export the series again")
    positions = np.empty((len(files), 3))
    # ITK has one thread in a process that is one of many.
    with ThreadPoolExecutor(min(available_cores(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())) as pool:
        for k, (values, positions[k]) in enumerate(pool.map(_read_slice, files)):
            if values.shape != (1, *size[1:]):
                found = "×".join(map(str, values.shape[::-1]))
                raise ImageError(f"the slice has size {found}, unlike the first", files[k], "export the series again")
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


def _read_slice(file: str) -> tuple[np.ndarray, np.ndarray]:
    """A slice's values (1, y, x), and the position that it states."""
    reader = _open(file)
    position = _text(reader, _IMAGE_POSITION)
    if not position:
        raise ImageError(
            "no Image Position (Patient)",
            file,
            "export the series with its geometry; nodule coordinates mean nothing without it",
        )
    return sitk.GetArrayFromImage(reader.Execute()), _numbers(position, 3)


def _check_positions(positions: np.ndarray, image: sitk.Image, files: Sequence[str]) -> None:
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
