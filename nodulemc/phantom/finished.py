"""The complete scans in a phantom cohort's folder, so that a stopped run can continue.

The folder has hidden notes. One note for each scan holds its table rows; it is written after the scan and its masks.
Another note describes how the scans are made.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodulemc.errors import TableError
from nodulemc.util.files import make_folder
from nodulemc.util.json_files import read_json, write_json_atomically
from nodulemc.util.locks import holding

logger = logging.getLogger(__name__)
CT, MASKS = "ct", "masks"
_NOTES = ".phantom"
_COHORT, _LOCK = "cohort.json", "lock"
# Raise this number if the same seed gives other voxels.
_METHOD = 1


@contextmanager
def writing(output: Path, made: dict[str, Any]) -> Iterator[None]:
    """Make the cohort's folders, and lock them against other runs.

    Args:
        output: The cohort's folder.
        made: The description of how its scans are made; JSON values.

    Raises:
        FileError: the folder cannot be made or written.
        TableError: another run is at work, or the scans in the folder were made in another way.
    """
    for folder in (CT, MASKS, _NOTES):
        make_folder(output / folder)
    with holding(output / _NOTES / _LOCK) as alone:
        if not alone:
            raise TableError("another run is writing these phantoms", output, "wait for it")
        _require_same(output, made | {"method": _METHOD})
        yield


def finished_rows(output: Path, series_uid: str) -> list[dict[str, Any]] | None:
    """Return the table rows of a complete scan. None if it is not complete, or one of its files is gone."""
    note = _note(output, series_uid)
    if not note.is_file():
        return None
    rows = read_json(note)
    files = [ct_file(output, series_uid), *(mask_file(output, row["AnnotationID"]) for row in rows)]
    return rows if all(file.is_file() for file in files) else None


def finish(output: Path, series_uid: str, rows: list[dict[str, Any]]) -> None:
    """Note that a scan and its masks are written."""
    write_json_atomically(_note(output, series_uid), rows)


def ct_file(output: Path, series_uid: str) -> Path:
    """Return the path of a scan's file."""
    return output / CT / f"{series_uid}.mha"


def mask_file(output: Path, annotation_id: str) -> Path:
    """Return the path of a nodule's mask."""
    return output / MASKS / f"{annotation_id}.mha"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file of the cohort. The file gets its place only when it is complete."""
    temporary = path.parent.parent / _NOTES / path.name
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _note(output: Path, series_uid: str) -> Path:
    return output / _NOTES / f"{series_uid}.json"


def _require_same(output: Path, made: dict[str, Any]) -> None:
    path = output / _NOTES / _COHORT
    if path.is_file():
        if read_json(path) != made:
            what = "the folder's scans were made with another seed, --into or version"
            raise TableError(what, output, "write to a new folder")
        return
    if any((output / CT).iterdir()):
        logger.warning("%s: nothing says whether the scans there are whole; they are made again", output)
    write_json_atomically(path, made)
