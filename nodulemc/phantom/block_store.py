"""Writing phantom nodules directly into a block store, without whole CTs."""

from pathlib import Path
from typing import Any

from nodulemc.data.block_store import BlockWriter
from nodulemc.errors import TableError
from nodulemc.phantom.controls import keeps
from nodulemc.phantom.generate import annotation_id, iter_patients_blocks
from nodulemc.phantom.patient import Patient, identifier_of
from nodulemc.util.progress import progress


def write_block_store(
    folder: Path, seed: int, patients: int, workers: int, controls: float | None = None
) -> list[dict[str, Any]]:
    """Write the nodules of a cohort's first patients to a block store, and return the table's rows.

    The blocks hold the voxels that `nodulemc prepare` would cut from the cohort's whole CTs. A stopped run continues
    where it was.

    Args:
        folder: The folder of the store.
        seed: The cohort's seed.
        patients: The number of patients.
        workers: The number of processes that draw.
        controls: See ``nodulemc.phantom.controls.keeps``.

    Raises:
        TableError, FileError: the folder cannot be written, or holds other blocks.
    """
    with BlockWriter(folder) as writer:
        drawn = [int(row["PatientID"]) - identifier_of(seed, 0) for row in writer.rows.values()]
        if drawn and not 0 <= min(drawn) <= max(drawn) < patients:
            raise TableError("the store holds other patients", folder, "write to a new folder")
        # The last patient may lack nodules.
        rest = range(max(drawn, default=0), patients)
        if not _annotations(seed, rest.start, controls) <= writer.rows.keys() <= _annotations(seed, patients, controls):
            raise TableError("the store holds other nodules", folder, "give the same --controls, or a new folder")
        for blocks in progress(iter_patients_blocks(seed, rest, workers, controls), len(rest), "patients"):
            for block in blocks:
                writer.add(block)
        return list(writer.rows.values())


def _annotations(seed: int, patients: int, controls: float | None) -> set[str]:
    """Return the AnnotationIDs of a cohort's first patients."""
    return {
        annotation_id(patient, scan, lesion)
        for patient in (Patient(seed, index) for index in range(patients))
        for scan in patient.scans
        for lesion in patient.shown(scan)
        if keeps(patient, scan, lesion, controls)
    }
