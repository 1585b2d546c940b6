"""Finding the files below a folder that are the slices of the requested CT.

Localizers, dose screens and other series may lie beside them, and so may notes, indexes and hidden files.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nodulemc import limits
from nodulemc.ct.checks import check_path
from nodulemc.ct.dicom_file import DicomFile, damaged, read_file
from nodulemc.ct.dicom_stack import heights, slices_of
from nodulemc.ct.folder_files import files_below, is_hidden
from nodulemc.errors import ImageError, printable

logger = logging.getLogger(__name__)
_MOST_NAMED = 10


def list_slices(folder: Path, uid: str | None = None) -> Sequence[DicomFile]:
    """Return the files of the only CT series below a folder, or of the series ``uid``.

    Localizers, secondary captures and series of one slice beside a CT are left out, with a warning.

    Raises:
        ImageError: the folder holds no series, several, not the one asked for, or a file that may be a slice and is
            damaged.
        OSError: a file cannot be read.
    """
    found: dict[str, list[DicomFile]] = {}
    others = []
    for count, path in enumerate(path for path in files_below(folder) if not is_hidden(path, folder)):
        if count == limits.MAX_DICOM_FILES:
            raise ImageError(f"more than {count} files", folder, "give a folder that holds one series")
        check_path(path)
        if path.is_fifo():  # to open it would wait for ever
            raise ImageError("a named pipe", path, "remove it from the series' folder")
        file = read_file(path)
        if file is not None and file.pixels is None:
            others.append(file)
        elif file is not None:
            found.setdefault(file.series, []).append(file)
    if not found:
        raise ImageError("no DICOM series", folder, "give a folder with the CT's slices, or the CT's own file")
    chosen = _choose(found, folder) if uid is None else _named(found, uid, folder)
    slices = _without_strangers(found[chosen])
    parents = {file.path.parent for file in slices}
    for other in others:
        if other.path.parent in parents and _may_be_slice(other, slices[0]):
            raise damaged(other.path)
    _check_parts(slices)
    return slices


def _named(found: dict[str, list[DicomFile]], uid: str, folder: Path) -> str:
    if uid not in found:
        raise ImageError(
            f"no series {uid[:80]!r}", folder, f"choose one of those it holds ({len(found)}): {_listed(found)}"
        )
    return uid


def _choose(found: dict[str, list[DicomFile]], folder: Path) -> str:
    """Return the only CT, or the only series."""
    scans = {uid: files for uid, files in found.items() if _frame_count(filter(_is_scan, files)) > 1} or found
    if len(scans) > 1:
        what = f"{len(scans)} DICOM series: {_listed(scans)}"
        if _frame_count(file for files in scans.values() for file in files) == len(scans):
            raise ImageError(f"{what}; none has more", folder, "export the slices as one series")
        hint = "give a folder that holds only one, or choose one by predict's --series UID (earlier CT: --prior-series)"
        raise ImageError(what, folder, hint)
    (chosen,) = scans
    if set(found) - {chosen}:
        rest = {uid: files for uid, files in found.items() if uid != chosen}
        logger.warning("%s: read is the CT %s; left out: %s", folder, chosen, _listed(rest))
    return chosen


def _is_scan(file: DicomFile) -> bool:
    return file.is_ct and not file.is_localizer


def _frame_count(files: Iterator[DicomFile]) -> int:
    return sum(file.number_of_frames for file in files)


def _without_strangers(files: Sequence[DicomFile]) -> Sequence[DicomFile]:
    """Return a series' files; if it holds a CT, without its localizers and secondary captures."""
    slices = [file for file in files if _is_scan(file)]
    strangers = [file.path for file in files if not _is_scan(file)]
    if slices and strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        logger.warning(
            "%s%s: a localizer or secondary capture in the CT's series is left out; remove it from the folder",
            strangers[0],
            more,
        )
    return slices or files


def _may_be_slice(other: DicomFile, known: DicomFile) -> bool:
    """Whether a file without readable pixels may be one of the slices: it states no other class and no other UID."""
    kinds = {file.texts["SOPClassUID"] for file in (other, known) if "SOPClassUID" in file.texts}
    return len(kinds) < 2 and other.series in ("", known.series)


def _check_parts(slices: Sequence[DicomFile]) -> None:
    """Check that a scan written in parts is complete; without the last one, the others still are an even stack."""
    found = Counter(file.texts.get("ConcatenationUID") for file in slices)
    for file in slices:
        total = file.numbers.get("InConcatenationTotalNumber")
        count = found[file.texts.get("ConcatenationUID")]
        if total is not None and count != total:
            raise ImageError(f"{count} of the series' {total} parts", file.path, "put all of them into the folder")


def _listed(found: dict[str, list[DicomFile]]) -> str:
    """Describe the series so that they can be told apart, the longest first."""
    longest = sorted(found, key=lambda uid: -_frame_count(iter(found[uid])))
    named = [f"{uid or 'without a UID'} ({_described(found[uid])})" for uid in longest[:_MOST_NAMED]]
    if len(longest) > _MOST_NAMED:
        named.append(f"and {len(longest) - _MOST_NAMED} more")
    return ", ".join(named)


def _described(files: Sequence[DicomFile]) -> str:
    count = _frame_count(iter(files))
    parts = []
    if description := files[0].texts.get("SeriesDescription"):
        parts.append(repr(printable(description)[:40]))
    if not files[0].is_ct:
        parts.append(files[0].texts.get("Modality", "no CT")[:16])
    parts.append(f"{count} slice{'s' * (count != 1)}")
    spacing = _spacing_mm(files)
    if spacing:
        parts.append(f"{spacing:.2f} mm apart")
    return ", ".join(parts)


def _spacing_mm(files: Sequence[DicomFile]) -> float | None:
    """Return the usual distance of neighbouring slices in mm, or None if it is not known."""
    try:
        slices = [one for file in files for one in slices_of(file)]
    except ImageError:
        return None
    gaps = np.diff(np.sort(heights(slices)))
    return float(np.median(gaps)) if gaps.size and np.isfinite(gaps).all() else None
