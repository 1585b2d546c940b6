"""LIDC-IDRI as the Cancer Imaging Archive gives it, made a table, masks and a block store.

The CTs are DICOM series and the readings XML files, both anywhere below one folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.columns import LUNA25
from nodulemc.csv_files import write_csv_atomically
from nodulemc.data.lidc_nodules import ReadNodule, nodules_of
from nodulemc.data.lidc_xml import RATINGS, Reading, read_reading
from nodulemc.dicom_file import DicomFile, read_file
from nodulemc.errors import ImageError, TableError
from nodulemc.folder_files import folders_below
from nodulemc.json_files import make_folder, write_atomically
from nodulemc.meta_image import mask_file
from nodulemc.progress import progress
from nodulemc.training.cutting import Excluded, Scans
from nodulemc.training.grids import Grid
from nodulemc.training.prepare import Prepared, prepare
from nodulemc.training.tables import Row, read_table
from nodulemc.words import counted

TABLE_NAME, MASKS_NAME = "table.csv", "masks"
COLUMNS = (*LUNA25, "readers", *RATINGS, "diameter_mm", "volume_mm3")
_SEX = {"F": "Female", "M": "Male"}
_REMEDY = "give the folder with LIDC-IDRI's DICOM series and the readers' XML"
_LAST_DIGITS = 5  # by which the archive, too, tells series apart


@dataclass(frozen=True)
class _Source:
    """A reading and the file that it is from."""

    reading: Reading
    path: Path


def prepare_lidc(folder: Path, output: Path, workers: int) -> Prepared:
    """Write a block store, and in it ``table.csv`` and ``masks/<AnnotationID>.mha``, which make the same store again.

    What is not there in full is left out and listed: readings without their CT, CTs that cannot be read, nodules
    without a voxel in their mask.

    Args:
        folder: holds CTs and readings.
        output: folder of the store.
        workers: number of processes that cut.

    Raises:
        TableError: a reading is damaged, or no nodule has its CT.
        ImageError, TableError: see ``prepare``.
    """
    scans = Scans(folder)
    sources, excluded = _readings(folder)
    rows: list[Row] = []
    make_folder(output / MASKS_NAME, TableError)
    for source in progress(sources, len(sources), "reading outlines"):
        try:
            found = list(_nodules(source, scans))
        except ImageError as error:
            excluded.append(_left_out(source, f"{error.what} ({error.where})"))
            continue
        for row, nodule, ct in found:
            if nodule.mask.size:
                rows.append(row)
                write_atomically(_mask_path(output, row), _mask_file(nodule, ct), TableError)
            else:
                excluded.append(Excluded(row["AnnotationID"], "no voxel that half of the readers have enclosed"))
    if not rows:
        raise TableError(
            f"no nodule of 3 mm or more in {counted(len(sources), 'reading')} with its CT", folder, _REMEDY
        )
    table = output / TABLE_NAME
    write_csv_atomically(table, [COLUMNS, *([row[column] for column in COLUMNS] for row in rows)], TableError)
    return prepare(read_table(table), scans, output / MASKS_NAME, output, workers, excluded)


def _readings(folder: Path) -> tuple[list[_Source], list[Excluded]]:
    """The readings with nodules, by their paths; a copy of one is left out, and one that another contradicts."""
    files = [
        parent / name for parent, names in folders_below(folder) for name in names if name.lower().endswith(".xml")
    ]
    found: dict[str, _Source] = {}
    excluded: dict[str, Excluded] = {}
    for path in progress(files, len(files), "reading XML"):
        reading = read_reading(path)
        if reading is None or not reading.markings:
            continue
        first = found.setdefault(reading.series, _Source(reading, path))
        if first.reading != reading:
            excluded[reading.series] = _left_out(first, f"another reading of this series, {path}, differs")
    return [source for uid, source in found.items() if uid not in excluded], list(excluded.values())


def _nodules(source: _Source, scans: Scans) -> Iterator[tuple[Row, ReadNodule, Grid]]:
    """A CT's nodules, each with its row and the CT's grid."""
    uid = source.reading.series
    place = scans.place({"SeriesInstanceUID": uid})
    if not place.path.exists():
        raise ImageError("no CT of this series", scans.folder, _REMEDY)
    ct = scans.grid({"SeriesInstanceUID": uid})
    header = _header(place.path, uid)
    for number, nodule in enumerate(nodules_of(source.reading.markings, ct), start=1):
        yield _row(nodule, number, header, ct), nodule, ct


def _header(folder: Path, uid: str) -> DicomFile:
    return next(file for file in map(read_file, _files(folder)) if file is not None and file.series == uid)


def _files(folder: Path) -> Iterator[Path]:
    return (parent / name for parent, names in folders_below(folder) for name in names)


def _row(nodule: ReadNodule, number: int, header: DicomFile, ct: Grid) -> Row:
    texts: Mapping[str, str] = header.texts
    patient = texts.get("PatientID", header.series)
    name = f"{patient}_{header.series[-_LAST_DIGITS:]}_{number}"
    point = ct.origin + ct.matrix @ nodule.centre
    values: dict[str, Any] = {
        "PatientID": patient,
        "SeriesInstanceUID": header.series,
        "StudyDate": texts.get("StudyDate", ""),
        **{f"Coord{axis}": round(float(mm), 3) for axis, mm in zip("XYZ", point, strict=True)},
        "LesionID": number,
        "AnnotationID": name,
        "NoduleID": name,
        "label": "" if nodule.label is None else nodule.label,
        "Age_at_StudyDate": "",
        "Gender": _SEX.get(texts.get("PatientSex", ""), ""),
        "readers": nodule.readers,
        "diameter_mm": round(nodule.diameter_mm, 2),
        "volume_mm3": round(nodule.volume_mm3, 1),
    }
    return values | {name: nodule.ratings.get(name, "") for name in RATINGS}


def _mask_path(output: Path, row: Row) -> Path:
    return output / MASKS_NAME / f"{row['AnnotationID']}.mha"


def _mask_file(nodule: ReadNodule, ct: Grid) -> bytes:
    origin = ct.origin + ct.matrix @ nodule.lower
    direction = ct.matrix / ct.spacing
    return mask_file(nodule.mask, origin.tolist(), ct.spacing.tolist(), direction.ravel().tolist())


def _left_out(source: _Source, reason: str) -> Excluded:
    nodules = counted(len(source.reading.markings), "outlined nodule")
    return Excluded(source.reading.series, f"{reason}; {nodules} in {source.path}")
