"""Nodules from a DICOM SEG or RTSTRUCT: a file, or the only one in a folder, which may hold other files."""

import io
import logging
import mmap
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, RTStructureSetStorage, SegmentationStorage

from nodulemc.ct.checks import check_path
from nodulemc.ct.dicom_file import DicomFile, begin_of_deflated, inflate, read_file, read_header, read_mapped
from nodulemc.ct.folder_files import files_below, is_hidden
from nodulemc.ct.volume import Volume
from nodulemc.errors import ImageError, NoduleMCError, PointsError, out_of_memory
from nodulemc.limits import MAX_DICOM_FILES, MAX_OUTLINE_BYTES
from nodulemc.points import rtstruct as rtstruct_points
from nodulemc.points import seg as seg_points
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.points.regions import Region, nodules_of
from nodulemc.util.files import require_regular

logger = logging.getLogger(__name__)
_LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")  # pydicom 3.0 has no name for it
# Of each class, what reads a file's regions and their frames of reference.
_READERS: dict[str, Callable[[DicomFile, Dataset], tuple[list[Region], Collection[str]]]] = {
    SegmentationStorage: seg_points.read_seg,
    _LABEL_MAP_STORAGE: seg_points.read_seg,
    RTStructureSetStorage: rtstruct_points.read_rtstruct,
}


def read_dicom(path: Path, volume: Volume) -> list[Nodule]:
    """Read the nodules of a DICOM SEG (each segment one) or RTSTRUCT (each ROI one), in the file's order.

    If the CT or the file states no frame of reference, a warning says that it cannot be checked whether they match.

    Raises:
        FileError: It is not a regular file.
        PointsError: There is no such file, or several; it is damaged, or has another frame of reference than the CT; or
            as ``nodulemc.points.regions.nodules_of``.
    """
    with _parsing(path):
        check_path(path)
        file = _only_one(path) if path.is_dir() else _given(path)
        regions, frames = _READERS[file.texts["SOPClassUID"]](file, _data_set(file))
    _check_frames(frames, file.path, volume)
    return nodules_of(regions, file.path, volume)


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn any exception from pydicom, which has no class of its own, into a PointsError."""
    try:
        with disable_value_validation():
            yield
    except ImageError as error:
        raise PointsError(error.what, error.where, "export the segmentation again") from error
    except NoduleMCError:
        raise
    except OSError as error:
        if out_of_memory(error):
            raise
        what = f"cannot read the file ({error.strerror or error})"
        raise PointsError(what, error.filename or path, "check that it exists") from error
    except Exception as error:
        if out_of_memory(error):
            raise
        raise PointsError("the DICOM file is damaged", path, "export it again") from error


def _given(path: Path) -> DicomFile:
    require_regular(path)
    file = read_file(path)
    if file is None:
        raise PointsError(
            "unknown points file type", path,
            "use .json, .mrk.json, .fcsv, .csv, a label image, a DICOM SEG or an RTSTRUCT",
        )  # fmt: skip
    kind = file.texts.get("SOPClassUID")
    if kind not in _READERS:
        found = UID(kind).name if kind else "no class"
        raise PointsError(f"the DICOM file is no SEG or RTSTRUCT ({found[:60]})", path, "give one of these")
    return file


def _only_one(folder: Path) -> DicomFile:
    paths = (path for path in files_below(folder) if not is_hidden(path, folder) and path.is_file())
    files = filter(None, map(read_file, islice(paths, MAX_DICOM_FILES)))
    found = [file for file in files if file.texts.get("SOPClassUID") in _READERS]
    if len(found) != 1:
        names = ", ".join(shortened(file.path.name) for file in found[:3])
        what = f"{len(found)} DICOM SEGs or RTSTRUCTs: {names}" if found else "no DICOM SEG or RTSTRUCT"
        raise PointsError(what, folder, "give the file that is meant")
    return found[0]


def _data_set(file: DicomFile) -> Dataset:
    """Return everything that a file states before its pixel data."""
    if file.pixels is not None:
        return read_header(file)
    most = MAX_OUTLINE_BYTES
    with file.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(content) > most:
            raise PointsError(f"the file holds more than {most >> 20} MiB", file.path, "leave out all but the nodules")
        begin = begin_of_deflated(content)
        if begin is None:
            return read_mapped(content)
        inflated = inflate(content, begin, most + 1)
        if len(inflated) > most:
            raise PointsError(f"it inflates to more than {most >> 20} MiB", file.path, "leave out all but the nodules")
        return read_dataset(io.BytesIO(inflated), False, True)


def _check_frames(frames: Collection[str], path: Path, volume: Volume) -> None:
    ours = volume.frame_of_reference
    others = sorted(set(frames) - {ours, ""})
    if ours and others:
        raise PointsError(
            f"the frame of reference is {shortened(others[0])}, and the CT's is {shortened(ours)}",
            path,
            "give the segmentation of this CT, or one that is registered to it and says so",
        )
    if not ours or "" in frames:
        silent = path.name if ours else volume.source
        logger.warning(
            "%s: whether it belongs to the CT cannot be checked: %s states no frame of reference", path, silent
        )
