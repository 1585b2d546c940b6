"""Which files of a folder are the slices of its DICOM series.

GDCM leaves out what it cannot read, so that a truncated slice at an end would shorten the scan and nobody would know;
and it aborts the process at a path that is not UTF-8.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from nodulemc import limits
from nodulemc.errors import ImageError
from nodulemc.headers import check_path

_HEAD_BYTES = 256  # the preamble, the magic and, close behind, the class
_MAGIC = slice(128, 132)
_CLASS = re.compile(rb"\x02\0\x02\0UI..([0-9.]+)\0?\x02\0", re.DOTALL)  # MediaStorageSOPClassUID, whole
_SUFFIXES = {".dcm", ".dicom", ".ima"}


def list_slices(folder: Path) -> Sequence[str]:
    """The files of a folder's only series, sorted along the slices' normal.

    Raises:
        ImageError: the folder holds no series or several, or a file that may be a slice and is damaged.
        OSError: a file cannot be read.
    """
    heads = _read_heads(folder)
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series ({', '.join(series)})" if series else "no DICOM series"
        raise ImageError(found, folder, "give a folder that holds exactly one series")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    slices = [Path(file).name for file in files]
    for name in sorted(set(heads) - set(slices)):
        if _may_be_slice(name, heads[name], heads[slices[0]]):
            raise ImageError(
                "the DICOM file is damaged", folder / name, "copy it again, or remove it if it is no slice"
            )
    return files


def _read_heads(folder: Path) -> dict[str, bytes]:
    """The first bytes of each file, by the file's name; all of them can be opened, and named to GDCM."""
    heads = {}
    for count, path in enumerate(folder.iterdir()):
        if count == limits.MAX_DICOM_FILES:
            raise ImageError(f"more than {count} files", folder, "give a folder that holds one series")
        check_path(path)
        if path.is_fifo():  # to open it would wait for ever
            raise ImageError("a named pipe", path, "remove it from the series' folder")
        if not path.is_dir():
            with path.open("rb") as file:
                heads[path.name] = file.read(_HEAD_BYTES)
    return heads


def _may_be_slice(name: str, head: bytes, slice_head: bytes) -> bool:
    """Whether a file that GDCM left out may be of the series; a DICOMDIR or dose report states another class."""
    if head[_MAGIC] != b"DICM":
        return Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".")
    stated, slices = _CLASS.search(head), _CLASS.search(slice_head)
    return stated is None or slices is None or stated[1] == slices[1]
