"""LIDC-IDRI's files as people have them, and the way from them to a report."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from data.lidc_files import box, marking, write_reading
from dicom import change_dicom, write_dicom_series
from ensembles import make_untrained_ensemble

from nodulemc.cli import main
from nodulemc.data.block_store import BlockStore
from nodulemc.data.lidc import COLUMNS
from nodulemc.models.architecture import Architecture

CT = make_ct(size=(60, 50, 12))
ONE = (marking(0, (CT.GetOrigin()[2] + 6, box(20, 10, 30, 22)), malignancy=5),)  # on the slice of index 4


def write_scan(folder: Path, patient: str, ct: sitk.Image = CT, **attributes: object) -> str:
    """Write a series as TCIA lays it out."""
    place = folder / patient / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192"
    uid = write_dicom_series(ct, place)
    change_dicom(*place.iterdir(), PatientID=patient, StudyDate="20000101", **attributes)
    return uid


def prepare(folder: Path, output: Path) -> int:
    return main(["prepare", "--lidc", str(folder), "--output", str(output), "--workers", "1"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def point(row: dict[str, str]) -> list[float]:
    return [float(row[f"Coord{axis}"]) for axis in "XYZ"]


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.is_file() and path.name != "table.csv"}


@pytest.mark.parametrize("turned", [0, 180], ids=["slices from below", "slices from above, turned over"])
def test_nodules_become_rows_masks_and_blocks(turned: float, tmp_path: Path, capsys):
    ct = make_ct(size=(60, 50, 12), direction=rotation(turned, 0, 0))
    folder, store = tmp_path / "LIDC-IDRI", tmp_path / "blocks"
    uid = write_scan(folder, "LIDC-IDRI-0900", ct, PatientSex="F")
    z = [ct.TransformIndexToPhysicalPoint((0, 0, k))[2] for k in range(12)]
    markings = [
        marking(0, (z[4], box(20, 10, 30, 22)), (z[5], box(20, 10, 30, 22)), malignancy=4, subtlety=5),
        marking(1, (z[4], box(22, 10, 30, 22)), malignancy=1, subtlety=4),
        marking(2, (z[5], box(20, 10, 30, 22)), malignancy=4),
        marking(3, (z[8], box(40, 30, 45, 35)), malignancy=2),
        marking(0, (z[8], box(40, 31, 45, 35)), malignancy=3),
    ]
    write_reading(folder / "tcia-lidc-xml" / "157" / "158.xml", uid, markings)
    assert prepare(folder, store) == 0
    assert f"written: {store}: 2 nodules (0 malignant, 1 undecided)\n" in capsys.readouterr().out
    undecided, benign = rows(store / "table.csv")[:: -1 if turned else 1]
    assert tuple(benign) == COLUMNS
    name = f"LIDC-IDRI-0900_{uid[-5:]}_{1 if turned else 2}"
    expected = {"PatientID": "LIDC-IDRI-0900", "SeriesInstanceUID": uid, "AnnotationID": name, "label": "0"}
    expected |= {"StudyDate": "20000101", "Gender": "Female", "Age_at_StudyDate": "", "readers": "2"}
    expected |= {"malignancy": "2.5", "subtlety": "", "diameter_mm": "5.03"}
    assert expected.items() <= benign.items()
    assert [undecided[column] for column in ("label", "malignancy", "subtlety", "readers")] == ["", "3.0", "4.5", "3"]

    truth = np.zeros((12, 50, 60), np.uint8)
    truth[4, 11:22, 23:30] = truth[5, 11:22, 21:30] = 1
    mask = sitk.ReadImage(str(store / "masks" / f"{undecided['AnnotationID']}.mha"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.Resample(mask, ct, sitk.Transform(), sitk.sitkNearestNeighbor)), truth
    )
    centre = ct.TransformPhysicalPointToContinuousIndex(point(undecided))
    np.testing.assert_allclose(centre, np.argwhere(truth).mean(axis=0)[::-1], atol=2e-3)
    (block,) = [block for block in BlockStore(store) if block.row["label"] is None]
    assert (block.mask.sum(), block.row["malignancy"]) == (truth.sum(), 3)
    np.testing.assert_array_equal(block.voxels[block.mask == 1], sitk.GetArrayViewFromImage(ct)[truth == 1])


def test_table_and_masks_make_the_same_store_again(tmp_path: Path):
    folder, store = tmp_path / "LIDC-IDRI", tmp_path / "blocks"
    uid = write_scan(folder, "LIDC-IDRI-0900")
    write_reading(folder / "158.xml", uid, ONE)
    assert prepare(folder, store) == prepare(folder, store) == 0
    parts = ["--table", store / "table.csv", "--nodule-masks", store / "masks", "--ct", folder]
    assert main(["prepare", *map(str, parts), "--output", str(tmp_path / "again"), "--workers", "1"]) == 0
    assert contents(tmp_path / "again") == contents(store)


@pytest.mark.heavy
def test_what_is_not_there_in_full_is_left_out_and_listed(tmp_path: Path, capsys):
    folder, store = tmp_path / "LIDC-IDRI", tmp_path / "blocks"
    uids = {name: write_scan(folder, name) for name in ("good", "damaged", "two readings", "other CT", "flat")}
    for name, uid in uids.items():
        write_reading(folder / name / "1.xml", uid, ONE)
    uids["elsewhere"] = write_scan(folder / "elsewhere", "x")
    change_dicom(*folder.glob("elsewhere/x/*/*/*"), PatientID="../out")
    write_reading(folder / "elsewhere" / "1.xml", uids["elsewhere"], ONE)
    copy = (folder / "good" / "1.xml").read_text().replace("<Version>1.8.1</Version>", "")
    (folder / "good" / "copy.xml").write_text(copy)
    slices = next(folder.glob("damaged/*/*"))
    (slices / "006.dcm").write_bytes((slices / "006.dcm").read_bytes()[:2000])
    other = marking(0, (ONE[0].outlines[0].z, box(20, 10, 31, 22)), malignancy=5)
    write_reading(folder / "two readings" / "2.xml", uids["two readings"], [other])
    write_reading(folder / "other CT" / "1.xml", uids["other CT"], [marking(0, (1e3, box(20, 10, 30, 22)))])
    flat = marking(0, (ONE[0].outlines[0].z, box(5, 5, 9, 6)), malignancy=1)
    write_reading(folder / "flat" / "1.xml", uids["flat"], [flat])
    write_reading(folder / "absent" / "1.xml", "1.2.3", [*ONE, flat])
    write_reading(folder / "without nodules" / "1.xml", "1.2.4", [])
    (folder / "radiograph.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"/>')
    assert prepare(folder, store) == 0
    assert "written: " in (shown := capsys.readouterr().out)
    assert "1 nodule (1 malignant)\n6 excluded from training:\n" in shown
    reasons = {row["AnnotationID"]: row["reason"] for row in rows(store / "excluded.csv")}
    without_voxel = f"flat_{uids['flat'][-5:]}_1"
    others = [uids[name] for name in ("damaged", "elsewhere")]
    assert list(reasons) == [uids["two readings"], "1.2.3", *others, without_voxel, uids["other CT"]]
    assert reasons["1.2.3"] == f"no DICOM series of this UID ({folder}); 2 outlined nodules in {folder}/absent/1.xml"
    assert "the DICOM file is damaged" in reasons[uids["damaged"]]
    assert "006.dcm" in reasons[uids["damaged"]]
    assert f"{folder}/two readings/2.xml is another reading of this series" in reasons[uids["two readings"]]
    assert "an outline at z = 1000 mm lies on no slice" in reasons[uids["other CT"]]
    assert "PatientID and series make the name '../out" in reasons[uids["elsewhere"]]
    assert not list(tmp_path.glob("**/out*"))
    assert reasons[without_voxel] == "no voxel that half of the readers have enclosed"
    assert [row["PatientID"] for row in BlockStore(store).table] == ["good"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lidc", "."], "no nodule of 3 mm or more that can be used in 0 readings"),
        (["--lidc", ".", "--table", "t.csv"], "--table with --lidc"),
        (["--lidc", ".", "--nodule-masks", "."], "--nodule-masks with --lidc"),
        (["--lidc", "absent"], "cannot read the file or folder"),
        (["--ct", ".", "--nodule-masks", "."], "no --table"),
        (["--ct", ".", "--table", "t.csv"], "no --nodule-masks"),
    ],
)
def test_refused_before_anything_is_written(options: list[str], message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *options, "--output", "deep/blocks"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_damaged_reading_is_refused(tmp_path: Path, capsys):
    write_scan(tmp_path / "LIDC-IDRI", "LIDC-IDRI-0900")
    (tmp_path / "LIDC-IDRI" / "158.xml").write_text("<LidcReadMessage>")
    assert prepare(tmp_path / "LIDC-IDRI", tmp_path / "blocks") == 2
    assert "158.xml: download it again" in capsys.readouterr().err


@pytest.mark.heavy
def test_a_real_scan_from_dicom_and_xml_to_a_report(shared_data: Path, tmp_path: Path, small_backbone):
    scans, store = shared_data / "lidc" / "scans", tmp_path / "blocks"
    assert prepare(scans, store) == 0
    found = rows(store / "table.csv")
    slabs = {
        row["diameter_mm"]: row
        for row in rows(shared_data / "lidc" / "slabs" / "table.csv")
        if row["PatientID"] == "LIDC-IDRI-0003"
    }
    same = ("label", "readers", "malignancy", "spiculation", "texture", "calcification", "diameter_mm", "volume_mm3")
    compared = [(row, slabs[key]) for row in found if (key := f"{float(row['diameter_mm'])}") in slabs]
    assert len(found) == 4
    assert len(compared) == len(slabs) == 3
    for row, other in compared:
        assert [float(row[name]) for name in same] == [float(other[name]) for name in same]

    make_untrained_ensemble(tmp_path / "ensemble", architecture=Architecture(small_backbone))
    predict = ["predict", scans / "LIDC-IDRI-0003", "--points", store / "table.csv", "--output", tmp_path / "p.csv"]
    assert main([*map(str, predict), "--resources", str(tmp_path / "ensemble"), "--device", "cpu"]) == 0
    evaluate = ["evaluate", tmp_path / "p.csv", "--table", store / "table.csv", "--store", store]
    assert main([*map(str, evaluate), "--bootstrap", "10", "--output", str(tmp_path / "evaluation")]) == 0
    report = (tmp_path / "evaluation" / "report.html").read_text()
    for row in found:
        assert row["AnnotationID"] in report
