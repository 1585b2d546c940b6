"""Reading a CT with its geometry (SimpleITK), and cutting out the part that is needed.

World coordinates are in mm, LPS, as in ITK and on the Grand-Challenge platform, whatever the file format.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.dicom_series import read_series
from nodulemc.errors import ImageError, out_of_memory
from nodulemc.headers import check_grid, check_header, check_path, voxel_type
from nodulemc.inflating import check_promise, inflate
from nodulemc.integrity import check_integrity
from nodulemc.stored_voxels import StoredVoxels

SUFFIXES = (".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".tif", ".tiff")


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
    check_path(path)
    with reading(path):
        if path.is_dir():
            series = read_series(path)
            return Volume(series.image, path, series.uid, series.acquisition)
        if not path.is_file():
            raise ImageError("no such CT", path, "check the path")
        if not path.name.lower().endswith(SUFFIXES):
            raise ImageError("unknown CT file type", path, f"use {' '.join(SUFFIXES)} or a DICOM folder")
        return Volume(_read_file(path), path)


def _read_file(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    image_io, voxels = check_header(path)
    reader.SetImageIO(image_io)
    reader.ReadImageInformation()
    check_grid(reader, path)
    # ITK verifies no checksum; inflating twice, to verify and to read, would cost as much as all else in reading.
    if voxels is not None and voxels.compressed and not voxels.rescaled:
        return _inflate(voxels, reader)
    if voxels is not None:
        check_integrity(voxels, reader)
    return reader.Execute()


def _inflate(voxels: StoredVoxels, reader: sitk.ImageFileReader) -> sitk.Image:
    """The image of which ``reader`` has read the information, its voxels inflated straight into its memory."""
    type_ = voxel_type(reader)
    length = math.prod(reader.GetSize()) * type_.itemsize
    check_promise(voxels, length)
    image = sitk.Image(reader.GetSize(), reader.GetPixelID())
    image.SetOrigin(reader.GetOrigin())
    image.SetSpacing(reader.GetSpacing())
    image.SetDirection(reader.GetDirection())
    # SimpleITK lets nobody write there; an array of our own would be a second copy of the scan, 300 MB for 600 slices.
    address, _ = sitk.GetArrayViewFromImage(image).__array_interface__["data"]
    memory = np.frombuffer((ctypes.c_ubyte * length).from_address(address), type_.newbyteorder(voxels.byte_order))
    inflate(voxels, memoryview(memory).cast("B"))
    if not memory.dtype.isnative:
        memory.byteswap(inplace=True)
    return image


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a reader's exception into an ImageError; ITK's own warnings would clutter stderr meanwhile.

    Raises:
        ImageError: within, a file could not be read.
    """
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except OSError as error:
        if out_of_memory(error):
            raise
        what = f"cannot read the CT ({error.strerror or error})"
        raise ImageError(what, error.filename or path, "check that it may be read") from error
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise ImageError(f"cannot read the CT ({reason})", path, "the file is damaged or no image") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
