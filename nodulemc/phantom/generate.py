"""Whole cohorts: table rows, nodule blocks for training, and the files of `nodulemc phantom`."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.columns import LUNA25
from nodulemc.data.block_store import BLOCK_MM, UNKNOWN_BOUNDS, NoduleBlock
from nodulemc.errors import TableError
from nodulemc.geometry import Grid
from nodulemc.limits import MAX_PHANTOM_PATIENTS
from nodulemc.phantom import malignancy
from nodulemc.phantom.controls import keeps
from nodulemc.phantom.finished import CT, ct_file, finish, finished_rows, mask_file, write_whole, writing
from nodulemc.phantom.insertion import Host, insert
from nodulemc.phantom.nodule import Rendered
from nodulemc.phantom.patient import FIRST_YEAR, Lesion, Patient
from nodulemc.phantom.render import Scene, draw_nodules, render, render_box
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.progress import progress
from nodulemc.util.worker_pool import in_order

TRUTH_COLUMNS = (
    "probability", "diameter_mm", "margin", "density", "calcification", "attachment",
    "years_since_first_scan", "doubling_days", "lobe", "slice_thickness_mm", "noise_hu",
)  # fmt: skip
MASK_MARGIN = 3
_COMPRESSION = 1


def scan_rows(patient: Patient, scan: int, scene: Scene) -> list[dict[str, Any]]:
    """Return the table rows of one scan, in the order of the scene's nodules."""
    rows = []
    for lesion, placed in zip(patient.shown(scan), scene.nodules, strict=True):
        imaging = {
            "lobe": patient.sites[lesion.number - 1].lobe,
            "slice_thickness_mm": scene.scanner.thickness,
            "noise_hu": round(scene.scanner.noise_hu, 1),
        }
        rows.append(_table_row(patient, scan, lesion, placed.centroid, imaging))
    return rows


def annotation_id(patient: Patient, scan: int, lesion: Lesion) -> str:
    """Return a row's AnnotationID, in LUNA25's form."""
    return f"{patient.identifier}_{lesion.number}_{_study_date(patient, scan)}"


def _study_date(patient: Patient, scan: int) -> int:
    return (patient.first_year + scan) * 10_000 + 102


def _table_row(
    patient: Patient, scan: int, lesion: Lesion, centroid: Iterable[float], imaging: dict[str, Any]
) -> dict[str, Any]:
    """Return the row of one nodule in one scan: LUNA25's columns, then the phantom's truth."""
    x, y, z = (round(float(c), 2) for c in centroid)
    diameter = lesion.diameter(scan)
    return {
        "PatientID": patient.identifier,
        "SeriesInstanceUID": patient.series_uid(scan),
        "StudyDate": _study_date(patient, scan),
        "CoordX": x,
        "CoordY": y,
        "CoordZ": z,
        "LesionID": lesion.number,
        "AnnotationID": annotation_id(patient, scan, lesion),
        "NoduleID": f"{patient.identifier}_{lesion.number}",
        "label": lesion.label,
        "Age_at_StudyDate": patient.age + patient.first_year + scan - FIRST_YEAR,
        "Gender": "Male" if patient.male else "Female",
        "probability": round(float(malignancy.probability(diameter, lesion.traits)), 6),
        "diameter_mm": round(diameter, 3),
        "margin": lesion.traits.margin,
        "density": lesion.traits.density,
        "calcification": lesion.traits.calcification,
        "attachment": lesion.traits.attachment,
        "years_since_first_scan": scan - lesion.first_scan,
        "doubling_days": "" if lesion.doubling_days is None else round(lesion.doubling_days, 1),
        **imaging,
    }


def nodule_blocks(patient: Patient, controls: float | None = None) -> list[NoduleBlock]:
    """Return every nodule of every scan with BLOCK_MM around it, with the same voxels as in the whole scans.

    Args:
        patient: The patient.
        controls: See ``nodulemc.phantom.controls.keeps``.
    """
    blocks = []
    for scan in patient.scans:
        kept = [keeps(patient, scan, lesion, controls) for lesion in patient.shown(scan)]
        if not any(kept):
            continue
        scene = patient.scene(scan)
        rows = scan_rows(patient, scan, scene)
        drawn = draw_nodules(scene)
        for row, placed, rendered in compress(zip(rows, scene.nodules, drawn, strict=True), kept):
            lower, upper = scene.grid.box(placed.centroid, BLOCK_MM)
            voxels, mask = render_box(scene, lower, upper, drawn), mask_on_box(rendered, lower, upper)
            blocks.append(NoduleBlock.on(scene.grid.crop(lower, upper), voxels, mask, UNKNOWN_BOUNDS, row))
    return blocks


def iter_nodule_blocks(seed: int, patients: Iterable[int], workers: int = 1) -> Iterator[NoduleBlock]:
    """Yield the nodule blocks of these patients (numbers from 0) of a seed's cohort, in order.

    With several workers, the calling script needs the usual ``if __name__ == "__main__"`` guard.
    """
    for blocks in iter_patients_blocks(seed, patients, workers):
        yield from blocks


def iter_patients_blocks(
    seed: int, patients: Iterable[int], workers: int = 1, controls: float | None = None
) -> Iterator[list[NoduleBlock]]:
    """Yield a list of blocks for each patient, as in ``iter_nodule_blocks``, with the rows that ``controls`` keeps."""
    return in_order(partial(_blocks_of, seed, controls), patients, workers)


def _blocks_of(seed: int, controls: float | None, index: int) -> list[NoduleBlock]:
    return nodule_blocks(Patient(seed, index), controls)


def mask_on_box(rendered: Rendered, lower: Array, upper: Array) -> Array:
    """Return a nodule's mask on the voxels ``lower`` ≤ index < ``upper`` (x, y, z) of its scan; uint8 z, y, x."""
    out = np.zeros((upper - lower)[::-1], np.uint8)
    low, high = np.maximum(lower, rendered.lower), np.minimum(upper, rendered.upper)
    target = tuple(map(slice, (low - lower)[::-1], (high - lower)[::-1]))
    out[target] = rendered.mask[tuple(map(slice, (low - rendered.lower)[::-1], (high - rendered.lower)[::-1]))]
    return out


def write_cohort(
    output: Path, seed: int, patients: int, workers: int, host: Host | None = None
) -> list[dict[str, Any]]:
    """Write ``ct/``, ``masks/`` and ``table.csv``, and return the table's rows.

    Scans that an earlier run finished are kept.

    Args:
        output: The cohort's folder.
        seed: The cohort's seed.
        patients: The number of patients.
        workers: The number of processes.
        host: The real scan that gets the nodules. None draws whole procedural scans.

    Raises:
        TableError: the folder holds other scans, or another run is writing to it.
    """
    if not {path.stem for path in (output / CT).glob("*.mha")} <= set(series_uids(seed, patients)):
        raise TableError("the folder holds scans of another cohort", output, "write to a new folder")
    with writing(output, {"seed": seed, "into": host and host.digest}):
        work = partial(_write_patient, output, seed, host)
        done = progress(in_order(work, range(patients), workers), patients, "patients")
        rows = [row for patient in done for row in patient]
        _write_table(output / "table.csv", rows)
    return rows


def series_uids(seed: int, patients: int) -> list[str]:
    """Return the SeriesInstanceUIDs of a cohort's first patients."""
    members = (Patient(seed, index) for index in range(patients))
    return [patient.series_uid(scan) for patient in members for scan in patient.scans]


def patients_until_malignant(seed: int) -> int:
    """Return the number of patients that a cohort needs for one malignant nodule."""
    members = (Patient(seed, index) for index in range(MAX_PHANTOM_PATIENTS))
    return next(k for k, patient in enumerate(members, start=1) if any(lesion.label for lesion in patient.lesions))


def _write_patient(output: Path, seed: int, host: Host | None, index: int) -> list[dict[str, Any]]:
    patient = Patient(seed, index)
    return [row for scan in patient.scans for row in _write_scan(output, host, patient, scan)]


def _write_scan(output: Path, host: Host | None, patient: Patient, scan: int) -> list[dict[str, Any]]:
    uid = patient.series_uid(scan)
    rows = finished_rows(output, uid)
    if rows is None:
        write = _write_procedural if host is None else partial(_write_inserted, host=host)
        rows = write(output, patient, scan)
        finish(output, uid, rows)
    return rows


def _write_procedural(output: Path, patient: Patient, scan: int) -> list[dict[str, Any]]:
    scene = patient.scene(scan)
    rows = scan_rows(patient, scan, scene)
    drawn = draw_nodules(scene)
    _write_ct(output, patient.series_uid(scan), scene.grid, render(scene, drawn))
    for row, rendered in zip(rows, drawn, strict=True):
        _write_mask(output, row["AnnotationID"], scene.grid, rendered)
    return rows


def _write_inserted(output: Path, patient: Patient, scan: int, host: Host) -> list[dict[str, Any]]:
    rows = []
    hu, placed = insert(host, patient, scan)
    _write_ct(output, patient.series_uid(scan), host.grid, hu)
    for lesion, centroid, rendered in placed:
        imaging = {
            "lobe": "",
            "slice_thickness_mm": round(host.grid.spacing[2], 3),
            "noise_hu": round(host.noise_hu, 1),
        }
        rows.append(_table_row(patient, scan, lesion, centroid, imaging))
        _write_mask(output, rows[-1]["AnnotationID"], host.grid, rendered)
    return rows


def _write_ct(output: Path, series_uid: str, grid: Grid, array: Array) -> None:
    """Write a CT (int16 HU, z, y, x)."""
    _write(grid.image(array), ct_file(output, series_uid))


def _write_mask(output: Path, annotation: str, grid: Grid, rendered: Rendered) -> None:
    """Write a mask: the scan's voxels, cut to the nodule and MASK_MARGIN around it."""
    filled = np.argwhere(rendered.mask)[:, ::-1]
    lower = np.maximum(rendered.lower + filled.min(axis=0) - MASK_MARGIN, 0)
    upper = np.minimum(rendered.lower + filled.max(axis=0) + 1 + MASK_MARGIN, grid.size)
    image = grid.crop(lower, upper).image(mask_on_box(rendered, lower, upper))
    _write(image, mask_file(output, annotation))


def _write(image: sitk.Image, path: Path) -> None:
    write_whole(
        path, lambda place: sitk.WriteImage(image, str(place), useCompression=True, compressionLevel=_COMPRESSION)
    )


def _write_table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the cohort's table."""
    columns = (*LUNA25, *TRUTH_COLUMNS)
    write_csv_atomically(path, [columns, *([row[column] for column in columns] for row in rows)])
