import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom import change_dicom, write_dicom_series
from training.luna25_files import Cohort, point_of, write_challenge_block

from nodulemc.cli import main
from nodulemc.data import extract as cutting
from nodulemc.data.block_store import BLOCK_MM, BlockStore, BlockWriter
from nodulemc.data.extract import ChallengeBlockSource, ScanSource
from nodulemc.data.nodule_table import read_table
from nodulemc.data.prepare import Prepared, prepare
from nodulemc.errors import ImageError, TableError

STORED = ["11_1_19990102", "11_2_19990102", "12_1_19990102", "12_3_19990102"]
WITHOUT_MASK = "12_2_19990102"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "cohort")


def run(cohort: Cohort, output: Path, workers: int = 1) -> Prepared:
    folder = cohort.folder
    return prepare(read_table(folder / "table.csv"), ScanSource(folder / "ct"), folder / "masks", output, workers)


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.heavy
def test_command_writes_the_store_and_lists_what_is_left_out(cohort: Cohort, tmp_path: Path, capsys):
    folder, output = cohort.folder, tmp_path / "store"
    arguments = ["--table", folder / "table.csv", "--ct", folder / "ct", "--nodule-masks", folder / "masks"]
    assert main(["prepare", *map(str, arguments), "--output", str(output), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert f"written: {output}: 4 nodules (2 malignant)\n" in shown
    assert shown.splitlines()[-2:] == ["1 excluded from training:", f"  {WITHOUT_MASK}  no mask"]
    assert (output / "excluded.csv").read_text() == f"AnnotationID,reason\n{WITHOUT_MASK},no mask\n"

    store = BlockStore(output)
    assert [row["AnnotationID"] for row in store.table] == STORED  # scan by scan
    written = {row["AnnotationID"]: row for row in cohort.rows}
    for block in (store[k] for k in range(4)):
        row = written[block.row["AnnotationID"]]
        assert {name: str(value) for name, value in row.items()} == {k: str(v) for k, v in block.row.items()}
        np.testing.assert_array_equal(block.point, point_of(row))
        ct = cohort.ct_of(row)
        low = ct.TransformPhysicalPointToIndex(block.origin.tolist())
        box = tuple(slice(a, a + n) for a, n in zip(low[::-1], block.voxels.shape, strict=True))
        np.testing.assert_array_equal(block.voxels, sitk.GetArrayFromImage(ct)[box])
        np.testing.assert_array_equal(block.mask, sitk.GetArrayFromImage(cohort.mask_of(row))[box])


@pytest.mark.heavy
def test_store_does_not_depend_on_the_number_of_workers(cohort: Cohort, tmp_path: Path):
    run(cohort, tmp_path / "one")
    run(cohort, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.fixture
def read_scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the CTs that are read."""
    names = []
    original = cutting.read_volume

    def read_volume(path: Path, **options):
        names.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(cutting, "read_volume", read_volume)
    return names


def test_each_scan_is_read_once(cohort: Cohort, tmp_path: Path, read_scans: list[str]):
    run(cohort, tmp_path / "store")
    assert read_scans == ["1.2.3.mha", "1.2.4.mha"]


@pytest.mark.heavy
def test_dicom_series_anywhere_below_give_the_same_blocks(cohort: Cohort, tmp_path: Path):
    run(cohort, tmp_path / "files")
    for name in ("1.2.3", "1.2.4"):
        folder = cohort.folder / "ct" / "nlst" / "patient" / f"CT_{name}"
        write_dicom_series(cohort.scans[name], folder)
        change_dicom(*folder.iterdir(), SeriesInstanceUID=name)
        (cohort.folder / "ct" / f"{name}.mha").unlink()
    prepared = run(cohort, tmp_path / "series", workers=2)
    assert [row["AnnotationID"] for row in prepared.rows] == STORED
    for one, other in zip(BlockStore(tmp_path / "files"), BlockStore(tmp_path / "series"), strict=True):
        np.testing.assert_array_equal(one.voxels, other.voxels)
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_allclose(one.origin, other.origin, atol=1e-6)
        np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-6)
        assert one.row == other.row


def test_two_copies_of_a_ct_name_row_and_both(cohort: Cohort, tmp_path: Path):
    write_dicom_series(cohort.scans["1.2.4"], cohort.folder / "ct" / "copy")
    change_dicom(*(cohort.folder / "ct" / "copy").iterdir(), SeriesInstanceUID="1.2.4")
    message = r"1\.2\.4 is there twice: .*table\.csv, line 3, .*1\.2\.4\.mha: keep one of it and .*ct/copy"
    with pytest.raises(ImageError, match=message):
        run(cohort, tmp_path / "store")


def stop_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run be interrupted once it has written so many blocks."""
    original = BlockWriter.add
    left = iter(range(blocks))

    def add(self: BlockWriter, block) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        original(self, block)

    monkeypatch.setattr(BlockWriter, "add", add)


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_stopped_run_continues(
    blocks: int, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_scans: list[str]
):
    run(cohort, tmp_path / "at_once")
    with monkeypatch.context() as patch:
        stop_after(blocks, patch)
        with pytest.raises(KeyboardInterrupt):
            run(cohort, tmp_path / "stopped")
    with pytest.raises(TableError, match="unfinished"):
        BlockStore(tmp_path / "stopped")
    read_scans.clear()
    run(cohort, tmp_path / "stopped")
    assert read_scans == ["1.2.3.mha", "1.2.4.mha"][blocks // 2 :]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "at_once")


def test_finished_store_is_left_as_it_is(cohort: Cohort, tmp_path: Path, read_scans: list[str]):
    run(cohort, tmp_path / "store")
    before = contents(tmp_path / "store")
    read_scans.clear()
    again = run(cohort, tmp_path / "store")
    assert (read_scans, len(again.rows), len(again.excluded)) == ([], 4, 1)
    assert contents(tmp_path / "store") == before


def test_mask_that_turns_up_later_is_added(cohort: Cohort, tmp_path: Path):
    run(cohort, tmp_path / "store")
    cohort.write_mask(cohort.rows[3])
    assert run(cohort, tmp_path / "store").excluded == []
    assert [row["AnnotationID"] for row in BlockStore(tmp_path / "store").table] == [*STORED, WITHOUT_MASK]


def test_store_of_other_nodules_is_refused(cohort: Cohort, tmp_path: Path):
    run(cohort, tmp_path / "store")
    cohort.rows[1]["label"] = 1
    cohort.write_table()
    with pytest.raises(
        TableError, match=r"12_1_19990102 is stored with label 0, not 1: .*store: write to a new folder"
    ):
        run(cohort, tmp_path / "store")
    del cohort.rows[1]
    cohort.write_table()
    with pytest.raises(TableError, match="the store holds 12_1_19990102, which is not to be prepared"):
        run(cohort, tmp_path / "store")
    assert len(BlockStore(tmp_path / "store")) == 4


def test_empty_mask_excludes_its_nodule(cohort: Cohort, tmp_path: Path):
    row = cohort.rows[2]
    sitk.WriteImage(sitk.Cast(cohort.mask_of(row) * 0, sitk.sitkUInt8), str(cohort.mask_path(row)))
    prepared = run(cohort, tmp_path / "store")
    assert [row["AnnotationID"] for row in prepared.rows] == [STORED[0], *STORED[2:]]
    with (tmp_path / "store" / "excluded.csv").open() as file:
        assert [*csv.DictReader(file)] == [
            {
                "AnnotationID": "11_2_19990102",
                "reason": "11_2_19990102.mha has no voxel of it within 5 mm of its point",
            },
            {"AnnotationID": WITHOUT_MASK, "reason": "no mask"},
        ]


def test_masks_of_whole_scans(cohort: Cohort, tmp_path: Path):
    """One file per scan, one number per nodule, as in the public masks for LUNA25."""
    run(cohort, tmp_path / "own")
    for name in ("1.2.3", "1.2.4"):
        rows = [row for row in cohort.rows if row["SeriesInstanceUID"] == name]
        numbers = sum(sitk.Cast(cohort.mask_of(row), sitk.sitkUInt16) * (5 - k) for k, row in enumerate(rows))
        sitk.WriteImage(numbers, str(cohort.folder / "masks" / f"{name}.nii.gz"))
        for row in rows:
            cohort.mask_path(row).unlink()
    run(cohort, tmp_path / "scans")
    assert contents(tmp_path / "scans") == contents(tmp_path / "own")


def remove_ct(cohort: Cohort) -> None:
    (cohort.folder / "ct" / "1.2.4.mha").unlink()


def move_point(cohort: Cohort) -> None:
    cohort.rows[4]["CoordZ"] += 60
    cohort.write_table()


def swap_scan(cohort: Cohort) -> None:
    cohort.rows[4]["SeriesInstanceUID"] = "1.2.3"
    cohort.write_table()


def cut_header(cohort: Cohort) -> None:
    (cohort.folder / "ct" / "1.2.4.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")


def add_slice(cohort: Cohort) -> None:
    mask = sitk.ConstantPad(cohort.mask_of(cohort.rows[4]), [0] * 3, [0, 0, 1], 0)
    sitk.WriteImage(mask, str(cohort.mask_path(cohort.rows[4])))


def forget_geometry(cohort: Cohort) -> None:
    array = sitk.GetArrayFromImage(cohort.mask_of(cohort.rows[4]))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(cohort.mask_path(cohort.rows[4])))


def mask_as_short_array(cohort: Cohort) -> None:
    cohort.mask_path(cohort.rows[4]).unlink()
    np.save(cohort.mask_path(cohort.rows[4]).with_suffix(".npy"), np.ones((3, 3, 3)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_ct, r"no such image: {table}, line 3, {ct}: "),
        (cut_header, r"cannot read the CT .*: {table}, line 3, {ct}: "),
        (move_point, r"the CT does not contain the nodule's point .*: {table}, line 6, {ct}: check the coordinates"),
        (swap_scan, r"the mask of .* does not lie on the voxels of its image .*: {table}, line 6, {mask}\.mha: "),
        (
            add_slice,
            r"the mask of 80×90×61 voxels reaches beyond its scan of 80×90×60 .*: {table}, line 6, {mask}\.mha",
        ),
        (forget_geometry, r"the mask of 80×90×60 voxels does not lie on the voxels .*: {table}, line 6, {mask}\.mha"),
        (mask_as_short_array, r"3×3×3 voxels has no geometry and another shape .*: {table}, line 6, {mask}\.npy"),
    ],
)
def test_errors_name_row_and_file_before_anything_is_written(spoil, message: str, cohort: Cohort, tmp_path: Path):
    spoil(cohort)
    names = {
        "table": r".*table\.csv",
        "ct": r".*ct/1\.2\.4\.mha",
        "mask": ".*masks/12_3_19990102",
    }
    with pytest.raises(ImageError, match=message.format(**names)):
        run(cohort, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_no_masks_at_all(cohort: Cohort, tmp_path: Path):
    for path in (cohort.folder / "masks").iterdir():
        path.unlink()
    with pytest.raises(TableError, match=r"no nodule has a mask: .*masks"):
        run(cohort, tmp_path / "store")
    (cohort.folder / "masks").rmdir()
    with pytest.raises(ImageError, match="no such folder of masks"):
        run(cohort, tmp_path / "store")


@pytest.mark.heavy
@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_scan_stops_the_run_and_can_be_mended(workers: int, cohort: Cohort, tmp_path: Path):
    path = cohort.folder / "ct" / "1.2.4.mha"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"the file holds \d+ of \d+ bytes: .*1\.2\.4\.mha"):
        run(cohort, tmp_path / "store", workers)
    path.write_bytes(whole)
    assert [row["AnnotationID"] for row in run(cohort, tmp_path / "store", workers).rows] == STORED


def test_challenge_blocks(cohort: Cohort, tmp_path: Path, capsys):
    """The challenge's blocks with masks of their shape give the scan's voxels where they are."""
    folder = tmp_path / "blocks"
    for row in cohort.rows:
        ct = cohort.ct_of(row)
        centre = np.array(ct.TransformPhysicalPointToIndex(point_of(row).tolist()))
        box = tuple(slice(int(max(c - n, 0)), int(c + n)) for c, n in zip(centre, (20, 18, 10), strict=True))
        write_challenge_block(folder, row["AnnotationID"], ct[box])
        if row["note"] != "no mask":
            (tmp_path / "masks" / "image").mkdir(parents=True, exist_ok=True)
            array = sitk.GetArrayFromImage(cohort.mask_of(row)[box])
            np.save(tmp_path / "masks" / "image" / f"{row['AnnotationID']}.npy", array)
    arguments = [
        "--table",
        cohort.folder / "table.csv",
        "--nodule-blocks",
        folder,
        "--nodule-masks",
        tmp_path / "masks",
    ]
    assert main(["prepare", *map(str, arguments), "--output", str(tmp_path / "store"), "--workers", "1"]) == 0
    store = BlockStore(tmp_path / "store")
    # In the table's order: each block is a file of its own.
    assert [row["AnnotationID"] for row in store.table] == [STORED[k] for k in (0, 2, 1, 3)]
    for k in range(4):
        block = store[k]
        [row] = [row for row in cohort.rows if row["AnnotationID"] == block.row["AnnotationID"]]
        index = np.array(block.voxels.shape) // 2
        world = block.origin + block.matrix @ index[::-1]
        ct = cohort.ct_of(row)
        assert block.voxels[tuple(index)] == ct[ct.TransformPhysicalPointToIndex(world.tolist())]
        assert block.mask.sum() > 100

    (folder / "metadata" / f"{STORED[2]}.npy").unlink()
    with pytest.raises(ImageError, match=r"cannot read the metadata .*: .*table\.csv, line 3, .*12_1_19990102\.npy"):
        prepare(
            read_table(cohort.folder / "table.csv"),
            ChallengeBlockSource(folder),
            tmp_path / "masks",
            tmp_path / "new",
            1,
        )


def test_split_of_a_store_names_what_it_holds(cohort: Cohort, tmp_path: Path):
    run(cohort, tmp_path / "store")
    arguments = ["--scheme", "kfold", "--folds", "2", "--seed", "0", "--output", str(tmp_path / "split.json")]
    assert main(["split", str(tmp_path / "store"), *arguments]) == 0
    folds = json.loads((tmp_path / "split.json").read_text())["folds"]
    assert Counter(name for fold in folds for name in fold) == Counter(STORED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--ct", ".", "--workers", "0"], "error: --workers 0"), (["--ct", "."], "error: cannot read the file")],
)
def test_errors_end_the_command_with_code_2(arguments: list[str], message: str, tmp_path: Path, capsys):
    required = [
        "--table",
        str(tmp_path / "absent.csv"),
        "--nodule-masks",
        str(tmp_path),
        "--output",
        str(tmp_path / "store"),
    ]
    assert main(["prepare", *required, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.heavy
def test_slabs_are_continued_to_whole_blocks_at_their_place(tmp_path: Path, capsys):
    direction = (0, 1, 0, 1, 0, 0, 0, 0, -1)
    random = np.random.default_rng(0)
    ct = sitk.GetImageFromArray(random.normal(-850, 20, (5, 60, 70)).astype(np.int16))
    mask = sitk.GetImageFromArray(np.zeros((5, 60, 70), np.uint8))
    for image in (ct, mask):
        image.SetSpacing((0.8, 0.9, 2.5))
        image.SetOrigin((-30.0, 12.0, 80.0))
        image.SetDirection(direction)
    ct[32:40, 26:34, :] = 40
    mask[32:40, 26:34, :] = 1
    for folder, name, image in (("ct", "1.2.3", ct), ("masks", "1_1_20000101", mask)):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(image, tmp_path / folder / f"{name}.mha")
    point = ct.TransformContinuousIndexToPhysicalPoint((35.5, 29.5, 2.0))
    columns = ["PatientID", "SeriesInstanceUID", "AnnotationID", "CoordX", "CoordY", "CoordZ", "label"]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, [1, "1.2.3", "1_1_20000101", *point, 1]])
    arguments = [
        "--table",
        tmp_path / "table.csv",
        "--ct",
        tmp_path / "ct",
        "--nodule-masks",
        tmp_path / "masks",
        "--slabs",
    ]
    assert main(["prepare", *map(str, arguments), "--output", str(tmp_path / "store")]) == 0
    block = BlockStore(tmp_path / "store")[0]
    assert block.mask.sum() == 5 * 8 * 8
    whole = sitk.GetImageFromArray(block.voxels)
    whole.SetOrigin(block.origin.tolist())
    whole.SetSpacing((0.8, 0.9, 2.5))
    whole.SetDirection(direction)
    low = np.array(whole.TransformPhysicalPointToIndex(ct.GetOrigin()))
    box = tuple(slice(a, a + n) for a, n in zip(low[::-1], (5, 60, 70), strict=True))
    np.testing.assert_array_equal(block.voxels[box], sitk.GetArrayFromImage(ct))
    np.testing.assert_array_equal(block.mask[box], sitk.GetArrayFromImage(mask))
    # The outer faces are at least half a block from the point along each axis.
    index = np.array(whole.TransformPhysicalPointToContinuousIndex(point))
    reach = np.minimum(index + 0.5, np.array(whole.GetSize()) - 0.5 - index) * whole.GetSpacing()
    assert (reach >= BLOCK_MM / 2 - 1e-6).all()
    assert not np.isfinite(block.scan_bounds).any()


def test_slabs_of_the_challenges_blocks_are_refused(tmp_path: Path, capsys):
    arguments = [
        "--table",
        tmp_path,
        "--nodule-blocks",
        tmp_path,
        "--nodule-masks",
        tmp_path,
        "--output",
        tmp_path / "store",
    ]
    assert main(["prepare", *map(str, arguments), "--slabs"]) == 2
    assert "--slabs without --ct" in capsys.readouterr().err
