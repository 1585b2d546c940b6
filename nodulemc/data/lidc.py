"""LIDC-IDRI, as the Cancer Imaging Archive provides it, turned into a table, masks and a block store.

The CTs are DICOM series and the readings are XML files. Both may lie anywhere below one folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc.columns import ANNOTATION, COORDINATES, LABEL, LUNA25, PATIENT, UID
from nodulemc.ct.dicom_file import DicomFile, read_file
from nodulemc.ct.folder_files import folders_below
from nodulemc.ct.meta_image import mask_file
from nodulemc.data.extract import Excluded, ScanSource
from nodulemc.data.lidc_nodules import ReadNodule, nodules_of
from nodulemc.data.lidc_xml import RATINGS, read_reading
from nodulemc.data.nodule_table import Row, read_table
from nodulemc.data.prepare import Prepared, prepare
from nodulemc.errors import ImageError, TableError, printable
from nodulemc.geometry import Grid
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.files import make_folder, write_atomically
from nodulemc.util.progress import progress
from nodulemc.util.text import counted

TABLE_NAME, MASKS_NAME = "table.csv", "masks"
COLUMNS = (*LUNA25, "readers", *RATINGS, "diameter_mm", "volume_mm3")
_SEX = {"F": "Female", "M": "Male"}
_REMEDY = "give the folder with LIDC-IDRI's DICOM series and the readers' XML"
_LAST_DIGITS = 5  # the archive, too, tells series apart by so many digits


@dataclass(frozen=True)
class _Source:
    """A reading's file, its series, the number of nodules that it outlines, and the hash of the content read from it.

    The archive has copies of some readings, and for one of them also the version before a correction. Copies may differ
    in their headers.
    """

    path: Path
    series: str
    outlined: int
    digest: bytes


def prepare_lidc(folder: Path, output: Path, workers: int) -> Prepared:
    """Write a block store with ``table.csv`` and ``masks/<AnnotationID>.mha``.

    The same store can be made again from the two. Incomplete cases are left out and listed: readings without their CT,
    CTs that cannot be read, nodules with an empty mask.

    Args:
        folder: The folder with CTs and readings.
        output: The store's folder.
        workers: The number of processes that cut blocks.

    Raises:
        FileError: a file cannot be read or written.
        TableError: a reading is damaged, or no nodule has its CT.
        ImageError, TableError: see ``prepare``.
    """
    scans, masks = ScanSource(folder), output / MASKS_NAME
    sources, left_out = _sources(folder)
    rows: list[Row] = []
    for source in progress(sources, len(sources), "reading outlines"):
        try:
            for row, mask in _nodules(source, scans):
                if mask is None:
                    left_out.append(Excluded(row[ANNOTATION], "no voxel that half of the readers have enclosed"))
                    continue
                make_folder(masks)
                write_atomically(masks / f"{row[ANNOTATION]}.mha", mask)
                rows.append(row)
        except ImageError as error:
            left_out.append(_left_out(source, f"{error.what} ({error.where})"))
    if not rows:
        what = f"no nodule of 3 mm or more that can be used in {counted(len(sources), 'reading')}"
        raise TableError(what, folder, _REMEDY)
    table = output / TABLE_NAME
    write_csv_atomically(table, [COLUMNS, *([row[column] for column in COLUMNS] for row in rows)])
    return prepare(read_table(table), scans, masks, output, workers, left_out)


def _sources(folder: Path) -> tuple[list[_Source], list[Excluded]]:
    """Return the readings with nodules, by their paths, each once, and those that exist in two versions."""
    files = [path for path in _files(folder) if path.suffix.lower() == ".xml"]
    found: dict[str, _Source] = {}
    left_out: dict[str, Excluded] = {}
    for path in progress(files, len(files), "reading XML"):
        reading = read_reading(path)
        if reading is None or not reading.markings:
            continue
        source = _Source(path, reading.series, len(reading.markings), sha256(repr(reading).encode()).digest())
        first = found.setdefault(source.series, source)
        if first.digest != source.digest:
            left_out[source.series] = _left_out(first, f"{path} is another reading of this series")
    return [source for uid, source in found.items() if uid not in left_out], list(left_out.values())


def _nodules(source: _Source, scans: ScanSource) -> list[tuple[Row, bytes | None]]:
    """Return the nodules of a CT, each with its row and its mask's file. The file is None if the mask has no voxel.

    Raises:
        ImageError: the CT is missing, damaged or another one.
    """
    series = {UID: source.series}
    place = scans.place(series)
    if place.series is None:
        raise ImageError("no DICOM series of this UID", scans.folder, _REMEDY)
    ct = scans.grid(series)
    header = next(file for path in _files(place.path) if (file := read_file(path)) and file.series == source.series)
    reading = read_reading(source.path)
    if reading is None:
        raise ImageError("no reading any more", source.path, _REMEDY)
    nodules = nodules_of(reading.markings, ct)
    return [
        (_row(nodule, number, header, ct), _mask_file(nodule, ct) if nodule.mask.size else None)
        for number, nodule in enumerate(nodules, start=1)
    ]


def _files(folder: Path) -> Iterator[Path]:
    return (parent / name for parent, names in folders_below(folder) for name in names)


def _row(nodule: ReadNodule, number: int, header: DicomFile, ct: Grid) -> Row:
    texts = header.texts
    patient = texts.get(PATIENT, header.series)
    name = f"{patient}_{header.series[-_LAST_DIGITS:]}_{number}"
    if Path(name).name != name:  # it names a file
        raise ImageError(f"PatientID and series make the name {printable(name)!r}", header.path, _REMEDY)
    point = ct.to_world(nodule.centre)
    values: dict[str, Any] = {
        PATIENT: patient,
        UID: header.series,
        "StudyDate": texts.get("StudyDate", ""),
        **{axis: round(float(mm), 3) for axis, mm in zip(COORDINATES, point, strict=True)},
        "LesionID": number,
        ANNOTATION: name,
        "NoduleID": name,
        LABEL: "" if nodule.label is None else nodule.label,
        "Age_at_StudyDate": "",
        "Gender": _SEX.get(texts.get("PatientSex", ""), ""),
        "readers": nodule.readers,
        "diameter_mm": round(nodule.diameter_mm, 2),
        "volume_mm3": round(nodule.volume_mm3, 1),
    }
    return values | {name: nodule.ratings.get(name, "") for name in RATINGS}


def _mask_file(nodule: ReadNodule, ct: Grid) -> bytes:
    """Return a nodule's mask on the CT's voxels, with a margin of one voxel, as no image is as thin as one slice."""
    lower, upper = np.array(nodule.lower), np.add(nodule.lower, nodule.mask.shape[::-1])
    low, high = np.maximum(lower - 1, 0), np.minimum(upper + 1, ct.size)
    mask = np.pad(nodule.mask, np.stack([lower - low, high - upper], axis=-1)[::-1])
    return mask_file(mask, ct.to_world(low).tolist(), ct.spacing, ct.direction)


def _left_out(source: _Source, reason: str) -> Excluded:
    return Excluded(source.series, f"{reason}; {counted(source.outlined, 'outlined nodule')} in {source.path}")
