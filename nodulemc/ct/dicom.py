"""Reading a folder with a DICOM series. Slices are read in several threads, since decoding takes long."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.columns import PATIENT
from nodulemc.ct.checks import check_bytes, check_grid, itk_direction
from nodulemc.ct.dicom_folder import list_slices
from nodulemc.ct.dicom_pixels import check_format, hounsfield
from nodulemc.ct.dicom_stack import Slice, axes, slices_of, stack
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.hardware import available_cores

_ACQUISITION = (
    "Modality", "ContrastBolusAgent", "SliceThickness", "RescaleSlope", "RescaleType", "AcquisitionDate",
    "AcquisitionDateTime", "SeriesDate", "StudyDate",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A DICOM series.

    Attributes:
        image: A 3-D scalar image after rescaling, in HU if it is a CT.
        uid: The SeriesInstanceUID.
        acquisition: The first slice's statements about the acquisition, by attribute name. PixelPaddingValue is the HU
            that the header calls padding, if such voxels are kept.
        ids: The identifiers of patient and scan in its slices.
        frame_of_reference: The FrameOfReferenceUID. None if it states none.
        slices: The slices, in the image's order.
    """

    image: sitk.Image
    uid: str
    acquisition: dict[str, str]
    ids: ScanIds
    frame_of_reference: str | None
    slices: Sequence[Slice]


@dataclass(frozen=True)
class SeriesHeader:
    """The headers of a DICOM series; every tuple is in x, y, z order, world coordinates are in mm, LPS.

    Attributes:
        slices: the slices, sorted along their normal.
        size: voxels along each axis.
        spacing: mm per voxel.
        origin: world position of the first voxel's centre.
        direction: row-major direction matrix, as in ITK.
    """

    slices: Sequence[Slice]
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def read_header(folder: Path, uid: str | None = None) -> SeriesHeader:
    """Read the headers that ``read_series`` reads, without the voxels.

    Raises:
        ImageError, OSError: As for ``read_series``, except for faults of voxels.
    """
    files = list_slices(folder, uid)
    for file in files:
        check_format(file)
    check_bytes(sum(file.frame_bytes * file.number_of_frames for file in files), folder)
    slices, step = stack([one for file in files for one in slices_of(file)])
    first = slices[0]
    row_mm, column_mm = first.numbers("PixelSpacing", 2).tolist()
    return SeriesHeader(
        slices,
        size=(first.file.numbers["Columns"], first.file.numbers["Rows"], len(slices)),
        spacing=(column_mm, row_mm, step),
        origin=tuple(first.numbers("ImagePositionPatient", 3).tolist()),
        direction=tuple(itk_direction(axes(first).T.ravel().tolist())),
    )


def read_series(folder: Path, uid: str | None = None) -> Series:
    """Read the only CT series below a folder, or the series ``uid``, slices sorted along their normal.

    Raises:
        ImageError: the folder holds no series, several, or one with damaged, missing, doubled or sheared slices, or
            with slices of more than one acquisition.
        OSError: a file cannot be read.
    """
    header = read_header(folder, uid)
    voxels, kept = _voxels(header.slices, folder)
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    image.SetSpacing(header.spacing)
    check_grid(image, folder)
    first = header.slices[0]
    acquisition = {name: first.texts[name] for name in _ACQUISITION if name in first.texts}
    if kept:
        acquisition["PixelPaddingValue"] = f"{min(kept):g}"
    ids = ScanIds(frozenset({first.file.series} - {""}), first.texts.get(PATIENT))
    return Series(image, first.file.series, acquisition, ids, first.texts.get("FrameOfReferenceUID"), header.slices)


def _voxels(slices: Sequence[Slice], folder: Path) -> tuple[Array, list[float]]:
    """Return the slices' values (z, y, x), and the HU that their headers call padding but that are kept."""
    voxels, kept = np.empty(0, np.int16), []
    # ITK has one thread in a process that is one of many.
    with ThreadPoolExecutor(min(available_cores(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())) as pool:
        for k, (values, padding) in enumerate(pool.map(hounsfield, slices)):
            type_ = np.promote_types(voxels.dtype, values.dtype)
            if k == 0 or type_ != voxels.dtype:
                check_bytes(len(slices) * values.size * type_.itemsize, folder)
            if k == 0:
                voxels = np.empty((len(slices), *values.shape), type_)
            voxels = voxels.astype(type_, copy=False)
            voxels[k] = values
            if padding is not None:
                kept.append(padding)
    return voxels, kept
