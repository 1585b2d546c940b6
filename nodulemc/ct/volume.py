"""Reading a CT with its geometry, and cutting out a part of it.

World coordinates are in mm, LPS, as in ITK and on Grand-Challenge, whatever the file format.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct import meta_image, nifti, nrrd
from nodulemc.ct.checks import DAMAGED, check_grid, check_image_header, check_path, itk_direction
from nodulemc.ct.compressed import check_length, read_voxels
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ct.stored_voxels import NOT_RESCALED, ImageHeader
from nodulemc.ct.tiff import check_pages
from nodulemc.errors import ImageError, out_of_memory
from nodulemc.util.itk import itk_silence

if TYPE_CHECKING:
    from nodulemc.ct.dicom_stack import Slice

SUFFIXES = (*meta_image.SUFFIXES, *nifti.SUFFIXES, *nrrd.SUFFIXES, ".tif", ".tiff")
_RESCALED_AT_ONCE = 1 << 16  # voxels; as float64 they stay in a core's cache


@dataclass(frozen=True)
class Volume:
    """A CT with its geometry; ``read_volume`` reads one.

    Attributes:
        image: A 3-D scalar image in HU, with its spacing in mm and its place in the world (LPS). It has the pixel type
            of the file, or a floating-point type if the file states a rescaling.
        source: The file or folder the CT was read from; messages name it.
        series_uid: The DICOM SeriesInstanceUID. None if the source is no DICOM series.
        acquisition: What a DICOM series states about how it was acquired, by attribute name; else empty.
        ids: The identifiers of patient and scan in the header.
        frame_of_reference: The DICOM FrameOfReferenceUID. None if the source states none.
        slices: The slices of a DICOM series, in the image's order; else empty.

    Examples:
        >>> from nodulemc import read_volume
        >>> volume = read_volume("test/input/images/chest-ct/ct.mha")
        >>> volume.image.GetSpacing()
        (0.7792, 0.7792, 2.5)
        >>> volume.distance_outside_mm((-110.6, -44.7, -217.8))  # inside
        0.0
    """

    image: sitk.Image
    source: Path
    series_uid: str | None = None
    acquisition: dict[str, str] = field(default_factory=dict)
    ids: ScanIds = field(default_factory=ScanIds)
    frame_of_reference: str | None = None
    slices: Sequence["Slice"] = ()

    def distance_outside_mm(self, point: Sequence[float]) -> float:
        """The distance in mm of a point x, y, z in mm (LPS) from the outer faces of the border voxels; 0 if inside."""
        index = np.array(self.image.TransformPhysicalPointToContinuousIndex([float(c) for c in point]))
        excess = index - np.clip(index, -0.5, np.array(self.image.GetSize()) - 0.5)
        direction = np.array(self.image.GetDirection()).reshape(3, 3)
        return float(np.linalg.norm(direction @ (excess * self.image.GetSpacing())))

    def box_around(self, points: Array) -> tuple[list[int], list[int]]:
        """Return the first index, and the one after the last, of the voxels around world points (N, 3) in mm (LPS).

        Both are x, y, z. If the box does not touch the scan, an axis has no index between the two.
        """
        index = np.array([self.image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int).tolist()
        high = np.minimum(np.ceil(index.max(axis=0)) + 1, self.image.GetSize()).astype(int).tolist()
        return low, high

    def crop(self, points: Array) -> sitk.Image | None:
        """Return the smallest box of voxels with which linear interpolation anywhere between ``points`` is exact.

        Args:
            points: World points (N, 3): x, y, z in mm (LPS).

        Returns:
            A float32 image with its own geometry, or None if the box does not touch the scan.

        Raises:
            ImageError: a voxel in the box is NaN or infinite.
        """
        low, high = self.box_around(points)
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return None
        part: sitk.Image = sitk.Cast(self.image[tuple(map(slice, low, high))], sitk.sitkFloat32)
        if not np.isfinite(sitk.GetArrayViewFromImage(part)).all():
            raise ImageError("voxels are NaN or infinite", self.source, "write the CT in Hounsfield units")
        return part


def read_volume(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a CT.

    Args:
        path: A file (.mha .mhd .nii .nii.gz .nrrd .tif .tiff), or a folder with a DICOM series in or below it.
        series: The SeriesInstanceUID of the series to read, if a folder holds several CTs.

    Returns:
        The CT in HU, with its geometry in mm (LPS).

    Raises:
        ImageError: The file is missing, unreadable, truncated or corrupt, or is not a 3-D scalar image; or the folder
            holds no series, several CTs, not the one asked for, or one with missing or sheared slices.

    Examples:
        >>> from nodulemc import read_volume
        >>> read_volume("test/input/images/chest-ct/ct.mha").image.GetSize()  # voxels along x, y, z
        (119, 78, 31)
    """
    path = Path(path)
    check_path(path)
    with reading(path):
        if path.is_dir():
            from nodulemc.ct.dicom import read_series  # pydicom takes a while to import

            found = read_series(path, series)
            return Volume(
                found.image, path, found.uid, found.acquisition, found.ids, found.frame_of_reference, found.slices
            )
        if series is not None:
            raise ImageError(f"--series {series} with a CT that is no folder", path, "leave it out")
        if not path.is_file():
            raise ImageError("no such CT", path, "check the path")
        if not path.name.lower().endswith(SUFFIXES):
            raise _unknown_type(path)
        return _read_file(path)


def _unknown_type(path: Path) -> ImageError:
    from nodulemc.ct.dicom_file import read_file

    if read_file(path) is not None:
        return ImageError("a single DICOM file", path, "give the folder that holds the series' slices")
    return ImageError("unknown CT file type", path, f"use {' '.join(SUFFIXES)} or a DICOM folder")


def read_image_header(path: Path) -> ImageHeader | None:
    """Read and check a CT file's header by the file's suffix; None if ITK is to read the file.

    Raises:
        ImageError: the header is malformed or impossible, or names a file outside its folder.
    """
    name = path.name.lower()
    for format_ in (meta_image, nifti, nrrd):
        if name.endswith(format_.SUFFIXES):
            header: ImageHeader = format_.read_header(path)
            check_image_header(header, path)
            return header
    return None


def require_image_header(path: Path) -> ImageHeader:
    """Read and check the header of a file that has a geometry.

    Raises:
        ImageError: As for ``read_image_header``, or the file has no such format.
    """
    header = read_image_header(path)
    if header is None:
        raise ImageError("no image with a geometry", path, "give a MetaImage, NIfTI or NRRD file")
    return header


def _read_file(path: Path) -> Volume:
    header = read_image_header(path)
    if header is None:
        return Volume(_read_tiff(path), path)
    return Volume(read_stored(header), path, ids=header.ids)


def _read_tiff(path: Path) -> sitk.Image:
    check_pages(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("TIFFImageIO")
    with itk_silence:
        reader.ReadImageInformation()
        check_grid(reader, path)
        image: sitk.Image = reader.Execute()
    return image


def read_stored(header: ImageHeader) -> sitk.Image:
    """Return the image of a checked header, with its voxels read directly into its memory.

    Raises:
        ImageError: The voxels are corrupt, cut, or too few; or, if compressed, too many.
    """
    length = math.prod(header.size) * header.stored_type.itemsize
    check_length(header.voxels, length)
    image = sitk.Image(header.size, sitk.GetImageFromArray(np.zeros((1, 1, 1), header.voxel_type)).GetPixelID())
    image.SetOrigin(header.origin)
    image.SetSpacing(header.spacing)
    image.SetDirection(itk_direction(header.direction))
    values = _memory(image)
    # What is to be rescaled is read into the memory's end: a voxel's float never reaches one that is yet to be read.
    stored = values.view(np.uint8)[-length:].view(header.stored_type.newbyteorder(header.voxels.byte_order))
    read_voxels(header.voxels, stored.data.cast("B"))
    if header.voxels.rescaling != NOT_RESCALED:
        _rescale(stored, values, *header.voxels.rescaling)
    elif not stored.dtype.isnative:
        stored.byteswap(inplace=True)
    return image


def _memory(image: sitk.Image) -> Array:
    """Return an image's voxels as a writable array of one dimension.

    SimpleITK gives no such array; one of our own would be a second copy of the scan, 300 MB for 600 slices.
    """
    view = sitk.GetArrayViewFromImage(image)
    address, _ = view.__array_interface__["data"]
    memory = (ctypes.c_ubyte * view.nbytes).from_address(address)
    return np.frombuffer(memoryview(memory), view.dtype)


def _rescale(stored: Array, values: Array, slope: float, intercept: float) -> None:
    """Write the rescaled values of the stored numbers; both lie in the same memory and end with it."""
    for start in range(0, len(stored), _RESCALED_AT_ONCE):
        part = slice(start, start + _RESCALED_AT_ONCE)
        values[part] = stored[part].astype(np.float64) * slope + intercept


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a reader's exception into an ImageError.

    Raises:
        ImageError: A file could not be read in the block.
    """
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
        raise ImageError(f"cannot read the CT ({reason})", path, DAMAGED) from error
