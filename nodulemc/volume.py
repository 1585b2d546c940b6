"""Reading a CT with its geometry (SimpleITK), and cutting out the part that is needed.

World coordinates are in mm, LPS, as in ITK and on the Grand-Challenge platform, whatever the file format.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc import limits
from nodulemc.errors import ImageError, out_of_memory
from nodulemc.headers import check_grid, check_header
from nodulemc.integrity import check_integrity
from nodulemc.meta_image import SUFFIXES as META_IMAGE
from nodulemc.meta_image import read_compressed

SUFFIXES = (".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".tif", ".tiff")
_IMAGE_POSITION = "0020|0032"
_PIXEL_SPACING = "0028|0030"
_SERIES_UID = "0020|000e"
_ACQUISITION = {"Modality": "0008|0060", "ContrastBolusAgent": "0018|0010", "SliceThickness": "0018|0050"}
# Slice positions are written with few decimals; a missing slice is off by a whole slice spacing.
_SLICE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Volume:
    """A CT.

    Attributes:
        image: 3-D scalar image in HU, in the pixel type it was stored in.
        source: where it was read from, for messages.
        series_uid: DICOM SeriesInstanceUID where the source is a DICOM series, else None.
        acquisition: what a DICOM series says of how it was made, by attribute name; empty where there is none.
    """

    image: sitk.Image
    source: Path
    series_uid: str | None = None
    acquisition: dict[str, str] = field(default_factory=dict)

    def distance_outside_mm(self, point: Sequence[float]) -> float:
        """How far ``point`` (x, y, z in mm, LPS) lies beyond the outer faces of the border voxels; 0 inside."""
        index = np.array(self.image.TransformPhysicalPointToContinuousIndex([float(c) for c in point]))
        excess = index - np.clip(index, -0.5, np.array(self.image.GetSize()) - 0.5)
        direction = np.array(self.image.GetDirection()).reshape(3, 3)
        return float(np.linalg.norm(direction @ (excess * self.image.GetSpacing())))

    def crop(self, points: np.ndarray) -> sitk.Image | None:
        """The smallest box of voxels with which linear interpolation anywhere between ``points`` is exact.

        Args:
            points: (N, 3) world points x, y, z in mm (LPS).

        Returns:
            A float32 image with its own geometry, or None where the box does not touch the scan.

        Raises:
            ImageError: a voxel in the box is NaN or infinite.
        """
        index = np.array([self.image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int).tolist()
        high = np.minimum(np.ceil(index.max(axis=0)) + 1, self.image.GetSize()).astype(int).tolist()
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return None
        part = sitk.Cast(self.image[tuple(map(slice, low, high))], sitk.sitkFloat32)
        if not np.isfinite(sitk.GetArrayViewFromImage(part)).all():
            raise ImageError("voxels are NaN or infinite", self.source, "write the CT in Hounsfield units")
        return part


def read_volume(path: str | Path) -> Volume:
    """Read a CT from a file (.mha .mhd .nii .nii.gz .nrrd .tif .tiff) or a folder with one DICOM series.

    Raises:
        ImageError: there is no such file, it is unreadable or truncated, is not a 3-D scalar image, or the
            DICOM folder holds no series, several, or one with missing or sheared slices.
    """
    path = Path(path)
    if path.is_dir():
        return _read_dicom(path)
    if not path.is_file():
        raise ImageError("no such CT", path, "check the path")
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageError("unknown CT file type", path, f"use {' '.join(SUFFIXES)} or a DICOM folder")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _reading(path):
        reader.SetImageIO(check_header(path))
        reader.ReadImageInformation()
        check_grid(reader, path)
        image = read_compressed(path, reader) if path.name.lower().endswith(META_IMAGE) else None
        if image is None:
            check_integrity(path, reader)
            image = reader.Execute()
    return Volume(image, path)


def _read_dicom(folder: Path) -> Volume:
    if sum(1 for _ in folder.iterdir()) > limits.MAX_DICOM_FILES:
        raise ImageError(f"more than {limits.MAX_DICOM_FILES} files", folder, "give a folder that holds one series")
    with _reading(folder):
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series ({', '.join(series)})" if series else "no DICOM series"
        raise ImageError(found, folder, "give a folder that holds exactly one series")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    first = sitk.ImageFileReader()
    first.SetImageIO("GDCMImageIO")
    first.SetFileName(files[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    with _reading(folder):
        first.ReadImageInformation()
        check_grid(first, folder, slices=len(files))
        image = reader.Execute()
    check_grid(image, folder)
    _check_slices(reader, image, folder)
    stated = {
        name: reader.GetMetaData(0, tag).strip("\0 ")
        for name, tag in _ACQUISITION.items()
        if reader.HasMetaDataKey(0, tag)
    }
    return Volume(image, folder, reader.GetMetaData(0, _SERIES_UID).strip("\0 "), stated)


def _check_slices(reader: sitk.ImageSeriesReader, image: sitk.Image, folder: Path) -> None:
    """Refuse a series whose slices do not form the regular grid that the image claims to be."""
    count = len(reader.GetFileNames())
    if count != image.GetSize()[2]:
        return  # one multi-frame file: its geometry comes from the file itself
    spacing = reader.GetMetaData(0, _PIXEL_SPACING) if reader.HasMetaDataKey(0, _PIXEL_SPACING) else "not stated"
    # ITK puts 1 mm where it is missing or impossible; y comes first.
    if not np.allclose(_numbers(spacing), image.GetSpacing()[1::-1]):
        raise ImageError(f"the pixel spacing is {spacing[:40]!r}", reader.GetFileNames()[0], "export the series again")
    for k in range(count):
        if not reader.HasMetaDataKey(k, _IMAGE_POSITION):
            raise ImageError(
                "no Image Position (Patient)",
                reader.GetFileNames()[k],
                "export the series with its geometry; nodule coordinates mean nothing without it",
            )
        stated = _numbers(reader.GetMetaData(k, _IMAGE_POSITION))
        off = np.linalg.norm(stated - image.TransformIndexToPhysicalPoint((0, 0, k)))
        if not off <= _SLICE_TOLERANCE * image.GetSpacing()[2]:
            raise ImageError(
                f"slice {k + 1} lies {off:.2f} mm from its place in an even stack",
                reader.GetFileNames()[k],
                "a slice is missing or doubled, or the gantry was tilted; resample the series first",
            )


def _numbers(text: str) -> np.ndarray:
    """The numbers of a DICOM attribute, NaN for what is none."""
    try:
        return np.array([float(number) for number in text.strip("\0 ").split("\\")])
    except ValueError:
        return np.array([np.nan])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn a reader's exception into an ImageError; ITK's own warnings would clutter stderr meanwhile."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise ImageError(f"cannot read the CT ({reason})", path, "the file is damaged or no image") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
