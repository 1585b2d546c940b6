"""A folder of many CTs, each found by its SeriesInstanceUID.

A CT is ``<SeriesInstanceUID>.mha`` in the folder itself, or a DICOM series in it or anywhere below, as in downloads by
idc-index, NBIA and TCIA.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nodulemc.ct.folder_files import folders_below
from nodulemc.ct.volume import SUFFIXES, reading
from nodulemc.errors import ImageError

CT_SUFFIX = ".mha"
_NO_SLICES = (*SUFFIXES, ".csv", ".json", ".txt", ".xml")  # these are not opened; slices may be called anything else


@dataclass(frozen=True)
class CtPlace:
    """The place of a CT.

    Attributes:
        path: Its file, or the folder with its slices.
        series: The series to read in that folder. None for a file.
    """

    path: Path
    series: str | None = None


class CtFolder:
    """A folder of CTs.

    It is searched when a CT is first asked for. The first and the last DICOM file of each folder below are read; the
    others only if these two belong to different series, or if a CT has not been found otherwise. A copy that is sent to
    another process searches anew.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def find(self, uid: str) -> CtPlace:
        """Return the place of the CT with a SeriesInstanceUID; if there is none, the file that would be it.

        Raises:
            ImageError: it is there twice, or a folder or file cannot be read.
        """
        file = Path(f"{self.folder}/{uid}{CT_SUFFIX}")
        with reading(self.folder):
            is_file = file.is_file()
            folders = self._by_ends.get(uid) or ([] if is_file else self._by_file.get(uid, []))
        places = [CtPlace(folder, uid) for folder in folders]
        if is_file or not places:
            places.insert(0, CtPlace(file))
        if len(places) > 1:
            raise ImageError(
                f"the CT of series {uid} is there twice", places[0].path, f"keep one of it and {places[1].path}"
            )
        return places[0]

    @cached_property
    def _files(self) -> dict[Path, list[Path]]:
        """The files that may be slices, by their folders."""
        below = folders_below(self.folder) if self.folder.is_dir() else ()
        found = {
            folder: [folder / name for name in names if not name.lower().endswith(_NO_SLICES)]
            for folder, names in below
        }
        return {folder: files for folder, files in found.items() if files}

    @cached_property
    def _by_ends(self) -> dict[str, list[Path]]:
        """The folders of each series, found by their first and last slices."""
        found = defaultdict(list)
        for folder, files in self._files.items():
            ends = {uid for some in (files, files[::-1]) if (uid := _first_series(some))}
            for uid in _all_series(files) if len(ends) > 1 else ends:
                found[uid].append(folder)
        return found

    @cached_property
    def _by_file(self) -> dict[str, list[Path]]:
        """The folders of each series, found by all files."""
        found = defaultdict(list)
        for folder, files in self._files.items():
            for uid in _all_series(files):
                found[uid].append(folder)
        return found


def _first_series(files: Iterable[Path]) -> str | None:
    return next(filter(None, map(_series, files)), None)


def _all_series(files: Iterable[Path]) -> list[str]:
    return sorted(set(filter(None, map(_series, files))))


def _series(path: Path) -> str | None:
    """Return the SeriesInstanceUID of a DICOM file, None for any other file."""
    from nodulemc.ct.dicom_file import read_file  # pydicom takes a while to import

    file = read_file(path) if path.is_file() else None
    return file.series or None if file else None
