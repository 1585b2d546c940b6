import csv
import hashlib

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from nodulemc.cli import main
from nodulemc.columns import LUNA25
from nodulemc.data.block_store import BLOCK_MM, BlockStore
from nodulemc.phantom.controls import keeps
from nodulemc.phantom.generate import annotation_id, iter_nodule_blocks, nodule_blocks
from nodulemc.phantom.patient import Patient
from nodulemc.phantom.render import draw_nodules, render_box

pytestmark = pytest.mark.heavy

SEED = 2000


def digest(blocks):
    return [(b.row, hashlib.sha256(b.voxels.tobytes() + b.mask.tobytes()).hexdigest()) for b in blocks]


@pytest.fixture(scope="module")
def blocks():
    return list(iter_nodule_blocks(SEED, range(7)))


def test_blocks_do_not_depend_on_workers_or_on_the_cohorts_size(blocks):
    assert digest(iter_nodule_blocks(SEED, [3, 4], workers=2)) == digest(
        [b for b in blocks if b.row["PatientID"] % 1000 in (4, 5)]
    )


def test_a_block_store_holds_the_same_blocks_and_is_continued(blocks, tmp_path):
    command = ["phantom", "--output", str(tmp_path), "--seed", str(SEED), "--workers", "1", "--blocks", "--patients"]
    assert main([*command, "3"]) == 0
    assert main([*command, "7"]) == 0
    store = BlockStore(tmp_path)
    assert len(store) == len(blocks)
    for stored, block in zip(store, blocks, strict=True):
        assert np.array_equal(stored.voxels, block.voxels)
        assert np.array_equal(stored.mask, block.mask)
        assert stored.row["AnnotationID"] == block.row["AnnotationID"]
        index = np.linalg.solve(stored.matrix, stored.point - stored.origin)
        assert np.allclose(index, block.grid.to_index(stored.point))


def test_scans_of_another_cohort_are_not_mixed_in(tmp_path, capsys):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "1.2.3.mha").touch()
    assert main(["phantom", "--output", str(tmp_path), "--patients", "1", "--seed", "4"]) == 2
    assert "the folder holds scans of another cohort" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "ct").iterdir()] == ["1.2.3.mha"]


def test_a_block_store_of_other_patients_is_not_mixed_in(tmp_path, capsys):
    command = ["phantom", "--output", str(tmp_path), "--patients", "1", "--workers", "1", "--blocks", "--seed"]
    assert main([*command, "3"]) == 0
    assert main([*command, "4"]) == 2
    assert "the store holds other patients" in capsys.readouterr().err


def test_controls_keep_every_malignant_nodule_and_about_as_many_benign_ones_as_asked(tmp_path, capsys):
    command = ["phantom", "--output", str(tmp_path), "--seed", "3", "--workers", "2", "--blocks", "--patients"]
    assert main([*command, "16", "--controls", "2"]) == 0
    kept = {row["AnnotationID"]: int(row["label"]) for row in BlockStore(tmp_path).table}
    rows = [
        (annotation_id(patient, scan, lesion), lesion.label, keeps(patient, scan, lesion, 2.0))
        for patient in (Patient(3, index) for index in range(16))
        for scan in patient.scans
        for lesion in patient.shown(scan)
    ]
    assert kept == {name: label for name, label, keep in rows if keep}
    assert set(kept.values()) == {0, 1}
    assert len(kept) < len(rows)
    # The same blocks as in the whole cohort.
    number, _, _ = next(iter(kept)).split("_")
    whole = {b.row["AnnotationID"]: b for b in nodule_blocks(Patient(3, int(number) - 4_000_001))}
    stored = BlockStore(tmp_path)[0]
    assert np.array_equal(stored.voxels, whole[stored.row["AnnotationID"]].voxels)
    assert main([*command, "17"]) == 2
    assert main([*command, "17", "--controls", "1"]) == 2
    assert capsys.readouterr().err.count("the store holds other nodules") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blocks", "--controls", "-1"], "--controls -1: nodulemc phantom: give 0 to 10"),
        (["--blocks", "--controls", "nan"], "--controls nan: nodulemc phantom: give 0 to 10"),
        (["--controls", "1"], "--controls without --blocks"),
    ],
)
def test_controls_are_a_number_for_block_stores(tmp_path, capsys, options, message):
    assert main(["phantom", "--output", str(tmp_path), "--seed", "3", "--patients", "1", *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_seeds_give_other_patients():
    first, second = (nodule_blocks(Patient(seed, 0))[0] for seed in (1, 2))
    assert first.row["PatientID"] != second.row["PatientID"]
    assert first.row["SeriesInstanceUID"] != second.row["SeriesInstanceUID"]
    assert first.row["diameter_mm"] != second.row["diameter_mm"]


def test_masks_have_the_tables_place_and_diameter(blocks):
    for block in blocks:
        assert block.voxels.shape == block.mask.shape
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.Execute(block.grid.image(block.mask))
        stated = [block.row[f"Coord{axis}"] for axis in "XYZ"]
        assert np.abs(np.subtract(statistics.GetCentroid(1), stated)).max() < min(block.grid.spacing)
        diameter = 2 * statistics.GetEquivalentSphericalRadius(1)
        assert diameter == pytest.approx(block.row["diameter_mm"], rel=0.06)


def test_blocks_reach_as_far_as_augmentation(blocks):
    for block in blocks:
        scan = block.row["StudyDate"] // 10_000 - Patient(SEED, block.row["PatientID"] % 1000 - 1).first_year
        whole = Patient(SEED, block.row["PatientID"] % 1000 - 1).scene(scan).grid
        point = np.array([block.row[f"Coord{axis}"] for axis in "XYZ"])
        for sign, ends in ((-1, (-0.5, -0.5, -0.5)), (1, np.array(block.grid.size) - 0.5)):
            reach = sign * (block.grid.to_world(np.array(ends)) - point)
            scan_end = sign * (whole.to_world(np.array([-0.5] * 3 if sign < 0 else np.array(whole.size) - 0.5)) - point)
            assert (reach >= np.minimum(BLOCK_MM / 2, scan_end) - 1e-6).all()


def test_nodule_differs_from_its_surroundings(blocks):
    solid = [b for b in blocks if b.row["density"] == "solid" and b.row["diameter_mm"] > 6]
    assert solid
    for block in solid:
        inside = block.voxels[block.mask > 0]
        assert np.median(inside) > -250


def test_rows_of_a_lesion_agree():
    for index in range(200):
        patient = Patient(SEED, index)
        assert 1 <= len(patient.scans) <= 3
        assert len({patient.series_uid(scan) for scan in patient.scans}) == len(patient.scans)
        for lesion in patient.lesions:
            diameters = [lesion.diameter(scan) for scan in range(lesion.first_scan, lesion.last_scan + 1)]
            assert all(np.diff(diameters) > 0) if lesion.label else len(set(diameters)) == 1


def test_lesions_do_not_overlap():
    for index in range(12):
        patient = Patient(SEED, index)
        places = [(site.point, lesion.largest) for site, lesion in zip(patient.sites, patient.lesions, strict=True)]
        for k, (point, diameter) in enumerate(places):
            for other, other_diameter in places[:k]:
                assert np.linalg.norm(point - other) > (diameter + other_diameter) / 2


def test_attachments_hold():
    seen = set()
    for patient in (Patient(SEED, index) for index in range(25)):
        for lesion, site in zip(patient.lesions, patient.sites, strict=True):
            attachment = lesion.traits.attachment
            seen.add(attachment)
            thorax = patient.anatomy.thorax(*site.point.astype(np.float32)[:, None])
            if attachment == "pleura":
                assert abs(thorax.lung[0]) < 0.5
            else:
                assert thorax.lung[0] > 2
            if attachment == "fissure":
                assert patient.anatomy.fissure_distance(thorax)[0] < 1
    assert seen == {"none", "vessel", "pleura", "fissure"}


def test_command_writes_lunas_layout(tmp_path, shared_data, capsys):
    assert main(["phantom", "--output", str(tmp_path), "--patients", "1", "--seed", "4", "--workers", "1"]) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    real = pd.read_csv(shared_data / "luna25" / "luna25_public_training_development_data.csv")
    assert tuple(table.columns[:12]) == tuple(real.columns) == LUNA25
    assert table.dtypes.iloc[:12].tolist() == real.dtypes.tolist()
    first = real.iloc[0]
    assert first.AnnotationID == f"{first.PatientID}_{first.LesionID}_{first.StudyDate}"
    patient = Patient(4, 0)
    scan = patient.scans[0]
    scene = patient.scene(scan)
    for row in table.itertuples():
        assert row.AnnotationID == f"{row.PatientID}_{row.LesionID}_{row.StudyDate}"
        assert row.NoduleID == f"{row.PatientID}_{row.LesionID}"
        assert row.StudyDate in set(real.StudyDate)
        assert row.Gender in set(real.Gender)
        assert len(row.SeriesInstanceUID) <= 64
        assert set(row.SeriesInstanceUID) <= set("0123456789.")
        mask = sitk.ReadImage(tmp_path / "masks" / f"{row.AnnotationID}.mha")
        assert mask.GetPixelID() == sitk.sitkUInt8
        ct = sitk.ReadImage(tmp_path / "ct" / f"{row.SeriesInstanceUID}.mha")
        assert ct.GetPixelID() == sitk.sitkInt16
        # The mask lies on the CT's voxels.
        corner = ct.TransformPhysicalPointToContinuousIndex(mask.GetOrigin())
        np.testing.assert_allclose(corner, np.rint(corner), atol=1e-3)
        inside = ct.TransformPhysicalPointToIndex((row.CoordX, row.CoordY, row.CoordZ))
        assert mask.TransformPhysicalPointToIndex((row.CoordX, row.CoordY, row.CoordZ)) == pytest.approx(
            np.subtract(inside, np.rint(corner))
        )
    assert sorted(p.stem for p in (tmp_path / "masks").iterdir()) == sorted(table.AnnotationID)
    # The whole scan has the voxels that a part of it is rendered with.
    whole = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "ct" / f"{patient.series_uid(scan)}.mha"))
    part = render_box(scene, (200, 180, 40), (260, 250, 62), draw_nodules(scene))
    np.testing.assert_array_equal(whole[40:62, 180:250, 200:260], part)
    with (tmp_path / "table.csv").open() as file:
        known = [row["probability"] for row in csv.DictReader(file)]
    assert all(0 < float(p) < 1 for p in known)
    shown = capsys.readouterr().out
    assert shown.startswith("1 nodule (0 malignant) in 1 scan\n")
    assert shown.endswith(f"\nwritten: {tmp_path}\n")


@pytest.mark.parametrize(("option", "value"), [("--patients", "0"), ("--seed", "-1"), ("--workers", "0")])
def test_impossible_numbers_are_refused(tmp_path, capsys, option, value):
    arguments = {"--patients": "1", "--seed": "1", "--workers": "1", option: value}
    flat = [word for pair in arguments.items() for word in pair]
    assert main(["phantom", "--output", str(tmp_path / "out"), *flat]) == 2
    assert f"{option} {value}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
