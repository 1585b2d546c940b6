"""A folder of many CTs, each found by its SeriesInstanceUID: ``<SeriesInstanceUID>.mha`` in the folder itself, or a
DICOM series in it or anywhere below, as idc-index, NBIA and TCIA lay out their downloads.
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
    """Where a CT is.

    Attributes:
        path: its file, or the folder with its slices.
        series: the series to read in that folder; None for a file.
    """

    path: Path
    series: str | None = None


class CtFolder:
    """A folder of CTs.

    It is searched when a CT is first asked for: of each folder below, the first and the last DICOM file are read, and
    the others only where these are of two series, or where a CT has not been found so. A copy that is sent to another
    process searches anew.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def find(self, uid: str) -> CtPlace:
        """Where the CT of a SeriesInstanceUID is; where there is none, the file that would be it.

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
        """The folders of each series, as their first and last slices tell."""
        found = defaultdict(list)
        for folder, files in self._files.items():
            ends = {uid for some in (files, files[::-1]) if (uid := _first_series(some))}
            for uid in _all_series(files) if len(ends) > 1 else ends:
                found[uid].append(folder)
        return found

    @cached_property
    def _by_file(self) -> dict[str, list[Path]]:
        """The folders of each series, as all files tell."""
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
    """The SeriesInstanceUID of a DICOM file, None of any other."""
    from nodulemc.ct.dicom_file import read_file  # pydicom takes a while to import

    file = read_file(path) if path.is_file() else None
    return file.series or None if file else None
