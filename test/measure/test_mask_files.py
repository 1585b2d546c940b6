import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch
from conftest import centre_of, make_ct

import nodulemc
from nodulemc import cli
from nodulemc.commands import predict
from nodulemc.ct.volume import Volume
from nodulemc.data.nodule_masks import MaskFolder
from nodulemc.errors import CaseError, FileError
from nodulemc.geometry import Grid
from nodulemc.measure.mask import segment
from nodulemc.measure.mask_files import write_masks
from nodulemc.points.reading import Nodule
from nodulemc.prediction import NodulePrediction, extract_patches


class Dense(MeanOfPatch):
    """An ensemble whose masks are what is dense."""

    def mask_probabilities(self, patches):
        return patches.astype(np.float64)


CT = make_ct()
POINT = centre_of(CT)


def written(folder, *names, source="ct.mha"):
    volume, nodules = Volume(CT, Path(source)), [Nodule(name, POINT) for name in names]
    patches = extract_patches(volume, nodules)
    predictions = [NodulePrediction(nodule, 0.75, (0.75,)) for nodule in nodules]
    return write_masks(folder, volume, predictions, segment(volume, [POINT] * len(names), patches, Dense()))


def test_masks_and_label_image_lie_on_the_cts_grid(tmp_path):
    *paths, segmentation, labels = written(tmp_path / "new" / "masks", "n1", None)
    names = [path.name for path in (*paths, segmentation, labels)]
    assert names == ["n1.mha", "2.mha", "ct.seg.nrrd", "ct.nii.gz"]
    whole = sitk.ReadImage(str(labels))
    assert whole.GetSize() == CT.GetSize()
    slicers = sitk.GetArrayFromImage(sitk.ReadImage(str(segmentation)))
    assert (slicers == sitk.GetArrayViewFromImage(whole)).all()
    for path in paths:
        mask = sitk.ReadImage(str(path))
        assert mask.GetPixelID() == sitk.sitkUInt8
        assert mask.GetSpacing() == CT.GetSpacing()
        assert mask.GetDirection() == CT.GetDirection()
        first = CT.TransformPhysicalPointToContinuousIndex(mask.GetOrigin())
        assert first == pytest.approx(np.rint(first), abs=1e-9)
        lower = np.rint(first).astype(int)[::-1]
        array = sitk.GetArrayViewFromImage(mask)
        on_ct = np.zeros(CT.GetSize()[::-1], np.uint8)
        on_ct[tuple(slice(start, start + n) for start, n in zip(lower, array.shape, strict=True))] = array
        assert 0 < on_ct.sum() < on_ct.size
        # Two nodules at one point have one mask; of equal probabilities the first nodule's counts.
        assert (on_ct == sitk.GetArrayViewFromImage(whole)).all()


def test_a_full_disk_leaves_no_mask(tmp_path, monkeypatch):
    left = [2]

    def full_disk(descriptor):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileError, match="No space left on device"):
        written(tmp_path, "n1", "n2", "n3")
    assert not list(tmp_path.iterdir())


def test_one_bad_path_leaves_no_mask_not_even_an_old_one(tmp_path):
    (tmp_path / "n3.mha").write_text("an earlier run's")
    (tmp_path / "n2.mha").mkdir()
    with pytest.raises(FileError, match="cannot write"):
        written(tmp_path, "n1", "n2", "n3")
    assert [path.name for path in tmp_path.iterdir()] == ["n2.mha"]


@pytest.mark.parametrize(
    "names", [("a", "a"), ("1", "2", "../x"), (".",), ("2", None), ("n1", "a\0b"), ("x" * 241,), ("\u0436" * 121,)]
)
def test_a_name_that_gives_no_file_of_its_own_is_refused(tmp_path, names):
    with pytest.raises(CaseError, match="gives no file of its own"):
        written(tmp_path, *names)
    assert not list(tmp_path.iterdir())


def test_the_longest_name_is_written_twice(tmp_path):
    for _ in range(2):
        paths = written(tmp_path, "x" * 240)
    assert {*tmp_path.iterdir()} == {*paths}


def test_the_ct_is_never_overwritten(tmp_path):
    with pytest.raises(CaseError, match="'ct' gives no file of its own"):
        written(tmp_path, "ct", source=tmp_path / "ct.mha")


class Ball(MeanOfPatch):
    """An ensemble whose masks are a ball of 3 voxels' radius, its centre so many voxels along x from the point."""

    def __init__(self, voxels):
        self.voxels = voxels

    def mask_probabilities(self, patches):
        z, y, x = np.indices(patches.shape[1:]) - 31.5
        inside = z**2 + y**2 + (x - self.voxels) ** 2 < 3**2
        return np.repeat(inside[None].astype(np.float64), len(patches), axis=0)


@pytest.mark.parametrize(("voxels", "note"), [(0, None), (4, None), (19, "13 mm beside the point"), (40, "is empty")])
def test_a_mask_that_misses_its_point_is_warned_about(tmp_path, monkeypatch, caplog, voxels, note):
    # The nearest voxel is 2.5 voxels of 50/64 mm nearer than the ball's centre.
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Ball(voxels))
    ct, points, output = (tmp_path / name for name in ("ct.mha", "p.json", "out.json"))
    sitk.WriteImage(CT, str(ct))
    points.write_text(json.dumps({"points": [{"name": "n1", "point": list(POINT)}]}))
    options = ["--points", points, "--masks", tmp_path / "masks", "--output", output]
    assert cli.main(["predict", str(ct), *map(str, options)]) == 0
    (point,) = json.loads(output.read_text())["points"]
    said = [warning for warning in point["warnings"] if "mask" in warning]
    assert len(said) == (note is not None)
    assert all(note in warning and f"nodule 'n1': {warning}" in caplog.messages for warning in said)


def test_predict_leaves_all_files_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Dense())
    ct, points, output, masks = (tmp_path / name for name in ("ct.mha", "p.json", "out.json", "masks"))
    sitk.WriteImage(CT, str(ct))
    points.write_text(json.dumps({"points": [{"name": "n1", "point": list(POINT)}]}))

    def code(ct, output):
        options = {"--points": points, "--masks": masks, "--output": output}
        return cli.main(["predict", str(ct), *(str(word) for option in options.items() for word in option)])

    assert code(ct, output) == 0
    assert output.exists()
    assert {path.name for path in masks.iterdir()} == {"n1.mha", "ct.seg.nrrd", "ct.nii.gz"}
    assert code(tmp_path / "none.mha", output) == 2
    assert not output.exists()

    def refuse(*_):
        raise CaseError("cannot write", output, "no")

    monkeypatch.setattr("nodulemc.output.detailed.write_json_atomically", refuse)
    assert code(ct, output) == 2
    assert not list(masks.iterdir())


def test_what_can_be_known_is_checked_before_the_weights_are_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: pytest.fail("the weights were loaded"))
    ct, points, file = (tmp_path / name for name in ("ct.mha", "p.json", "file"))
    for path in (ct, points, file):
        path.touch()
    for words, message in (
        ([tmp_path / "none.mha", "--points", points], "cannot read the file or folder (No such file or directory): "),
        ([ct, "--points", tmp_path / "none.json"], "cannot read the file or folder (No such file or directory): "),
        ([ct, "--points", points, "--output", file / "out.json"], "cannot make the folder (File exists): "),
        ([ct, "--points", points, "--masks", file], "cannot make the folder (File exists): "),
    ):
        assert cli.main(["predict", *map(str, words)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")


def test_names_are_checked_before_the_network_runs(tmp_path, monkeypatch, capsys):
    ensemble = Dense()
    ensemble.member_probabilities = None
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: ensemble)
    ct, points, masks, output = (tmp_path / name for name in ("ct.mha", "p.json", "made/masks", "also/made/out.json"))
    sitk.WriteImage(CT, str(ct))
    points.write_text(json.dumps({"points": [{"name": "a/b", "point": list(POINT)}]}))
    words = ["predict", ct, "--points", points, "--masks", masks, "--output", output]
    assert cli.main([*map(str, words)]) == 2
    assert "error: nodule name 'a/b' gives no file of its own" in capsys.readouterr().err
    assert {*tmp_path.iterdir()} == {ct, points}
    masks.parent.mkdir()
    assert cli.main([*map(str, words)]) == 2
    assert {*tmp_path.iterdir()} == {ct, points, masks.parent}
    assert not list(masks.parent.iterdir())


@pytest.mark.heavy
def test_many_nodules_are_scored_as_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nodulemc.prediction.QUIET_S", 0.0)
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Dense())
    ct, points, output = (tmp_path / name for name in ("ct.mha", "p.json", "out.json"))
    sitk.WriteImage(CT, str(ct))
    x, y, z = POINT
    places = [{"name": f"n{k}", "point": [x + k, y - k, z]} for k in range(11)]
    points.write_text(json.dumps({"points": places}))
    masks = tmp_path / "masks"
    words = ["predict", ct, "--points", points, "--output", output, "--masks", masks]
    assert cli.main([*map(str, words)]) == 0
    found = [point["probability"] for point in json.loads(output.read_text())["points"]]
    expected = [prediction.probability for prediction in nodulemc.predict(ct, points, Dense())]
    assert found == expected
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith(f"written: {output}: 11 nodules, probability {min(found):.4f} to {max(found):.4f}; ")
    assert second == f"written: {masks}: 11 masks, all in ct.nii.gz"
    assert len(list(masks.iterdir())) == 13
    progress = [line.partition(",")[0] for line in shown.err.splitlines() if not line.startswith("warning: ")]
    assert progress[-1] == "nodules: 11/11"
    assert not any(line.startswith("masks: ") for line in progress)  # they come with the nodules


@pytest.mark.parametrize("of_scan", [False, True])
def test_prepare_reads_them(tmp_path, of_scan):
    first, *_ = written(tmp_path, "n1")
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(first))).sum()
    if of_scan:
        first.unlink()
    row = {"AnnotationID": "n1", "SeriesInstanceUID": "ct"}
    folder, grid = MaskFolder(tmp_path), Grid.of(CT)
    mask = folder.fit(folder.find(row), row, grid, whole_scan=True)
    assert mask.of_scan == of_scan
    assert mask.cut(mask.read(), grid, (0, 0, 0), POINT).sum() == voxels > 0
