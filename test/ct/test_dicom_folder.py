"""Folders as people have them: several series, folders below, and other files beside the slices."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct
from dicom import change_dicom, write_dicom_series, write_frames
from ensembles import make_untrained_ensemble
from pydicom.uid import (
    MediaStorageDirectoryStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)

from nodulemc.cli import main
from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError
from nodulemc.models.architecture import Architecture
from nodulemc.prediction import predict

CT = make_ct(size=(20, 24, 6))


def is_ct(image: sitk.Image) -> bool:
    return np.array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(CT))


def other_series(folder: Path, *, slices: int = 6, **attributes: object) -> str:
    """Write another series with other attributes."""
    uid = write_dicom_series(make_ct(size=(20, 24, 20), seed=7)[:, :, :slices], folder)
    for file in folder.iterdir():
        change_dicom(file, **attributes)
    return uid


LOCALIZER = {"ImageType": ["DERIVED", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}


@pytest.mark.parametrize(
    ("slices", "attributes"),
    [
        (1, {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}),
        (3, {"SOPClassUID": SecondaryCaptureImageStorage}),
        (6, LOCALIZER),
        (2, LOCALIZER | {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}),
        (1, {"SeriesDescription": "Topogram 0.6 T20f"}),
        (6, {"SOPClassUID": SegmentationStorage, "Modality": "SEG"}),
        (6, {"SOPClassUID": MRImageStorage, "Modality": "MR"}),
    ],
)
def test_other_images_beside_a_ct_are_left_out(tmp_path, caplog, slices, attributes):
    uid = write_dicom_series(CT, tmp_path / "2 CT")
    other = other_series(tmp_path / "1 other", slices=slices, **attributes)
    volume = read_volume(tmp_path)
    assert volume.series_uid == uid
    assert is_ct(volume.image)
    (said,) = caplog.messages
    assert uid in said
    assert f"left out: {other}" in said


@pytest.mark.parametrize(
    "attributes",
    [LOCALIZER | {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, {"SOPClassUID": SecondaryCaptureImageStorage}],
)
def test_a_stranger_in_the_cts_series_is_left_out_and_named(tmp_path, caplog, attributes):
    write_dicom_series(CT, tmp_path)
    shutil.copy(tmp_path / "000.dcm", tmp_path / "0.dcm")
    change_dicom(tmp_path / "0.dcm", SOPInstanceUID=generate_uid(), **attributes)
    assert is_ct(read_volume(tmp_path).image)
    (said,) = caplog.messages
    assert said.startswith(str(tmp_path / "0.dcm"))
    assert "remove it from the folder" in said


def test_folders_below_are_searched(tmp_path, caplog):
    write_dicom_series(CT, tmp_path / "LIDC-IDRI-0001" / "1.3.6 study" / "CT 3000566")
    assert is_ct(read_volume(tmp_path).image)
    assert is_ct(read_volume(tmp_path / "LIDC-IDRI-0001").image)
    assert not caplog.messages


def test_a_series_in_several_folders_is_one(tmp_path):
    write_dicom_series(CT, tmp_path / "all")
    for k, file in enumerate(sorted((tmp_path / "all").iterdir())):
        (tmp_path / f"part {k % 2}").mkdir(exist_ok=True)
        file.rename(tmp_path / f"part {k % 2}" / f"IM{k}")
    assert is_ct(read_volume(tmp_path).image)


def test_what_else_lies_beside_slices_is_ignored(tmp_path, caplog):
    folder = tmp_path / "series"
    write_dicom_series(CT, folder)
    for name, kind in (("DICOMDIR", MediaStorageDirectoryStorage), ("dose.dcm", XRayRadiationDoseSRStorage)):
        shutil.copy(folder / "000.dcm", tmp_path / name)
        change_dicom(tmp_path / name, SOPClassUID=kind, PixelData=None, Rows=None, SeriesInstanceUID=generate_uid())
    for name in ("._000.dcm", ".DS_Store", "Thumbs.db", "LICENSE", "notes.txt", "ct.xml", "empty"):
        (folder / name).write_bytes(b"" if name == "empty" else b"anything" * 100)
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "000.dcm", folder / ".hidden" / "000.dcm")
    assert is_ct(read_volume(tmp_path).image)
    assert not caplog.messages


def test_two_cts_are_told_apart_and_one_can_be_chosen(tmp_path):
    uid = write_dicom_series(CT, tmp_path / "a")
    other = other_series(tmp_path / "b", slices=5, SeriesDescription="Lung 1.5 B60f")
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    assert str(refused.value) == (
        f"2 DICOM series: {uid} (6 slices, 1.50 mm apart), {other} ('Lung 1.5 B60f', 5 slices, 1.50 mm apart): "
        f"{tmp_path}: give a folder that holds only one, or choose one by predict's --series UID "
        "(earlier CT: --prior-series)"
    )
    volume = read_volume(tmp_path, series=uid)
    assert volume.series_uid == uid
    assert is_ct(volume.image)
    assert read_volume(tmp_path, series=other).image.GetSize() == (20, 24, 5)
    with pytest.raises(ImageError, match=f"no series '1.2.3': .*one of those it holds \\(2\\): {uid}"):
        read_volume(tmp_path, series="1.2.3")


@pytest.mark.heavy
def test_at_most_ten_series_are_named(tmp_path):
    uids = [other_series(tmp_path / str(k), slices=2 + k) for k in range(13)]
    with pytest.raises(ImageError, match=r"^13 DICOM series: .*, and 3 more: ") as refused:
        read_volume(tmp_path)
    named = [uid for uid in uids if uid in str(refused.value)]
    assert named == uids[3:]  # the longest
    assert len(str(refused.value)) < 1500


def test_slices_with_a_series_uid_each_are_refused(tmp_path):
    write_dicom_series(CT, tmp_path)
    for file in tmp_path.iterdir():
        change_dicom(file, SeriesInstanceUID=generate_uid())
    with pytest.raises(ImageError, match=r"^6 DICOM series: .* none has more.*export the slices as one series"):
        read_volume(tmp_path)


def test_a_series_can_be_chosen_though_it_is_no_ct(tmp_path):
    write_dicom_series(CT, tmp_path / "a")
    other = other_series(tmp_path / "b", **LOCALIZER)
    assert not is_ct(read_volume(tmp_path, series=other).image)


def test_a_series_of_a_file_is_refused(tmp_path):
    sitk.WriteImage(CT, tmp_path / "ct.mha")
    with pytest.raises(ImageError, match=r"--series 1\.2 with a CT that is no folder"):
        read_volume(tmp_path / "ct.mha", series="1.2")


def test_predict_takes_the_series(tmp_path):
    uid = write_dicom_series(CT, tmp_path / "a")
    other_series(tmp_path / "b")
    with pytest.raises(ImageError, match="2 DICOM series"):
        predict(tmp_path, [], None)
    with pytest.raises(ImageError, match="no series '1'"):
        predict(tmp_path, [], None, series="1")
    assert read_volume(tmp_path, series=uid).series_uid == uid


@pytest.mark.heavy
def test_the_command_takes_the_series(tmp_path, small_backbone, capsys):
    resources = tmp_path / "resources"
    resources.mkdir()
    make_untrained_ensemble(resources, architecture=Architecture(small_backbone))
    chosen = write_dicom_series(make_ct(), tmp_path / "ct" / "a")
    write_dicom_series(make_ct(seed=1), tmp_path / "ct" / "b")
    points = tmp_path / "p.json"
    points.write_text(json.dumps({"points": [{"name": "n1", "point": centre_of(make_ct())}]}))
    command = ["predict", str(tmp_path / "ct"), "--points", str(points), "--resources", str(resources)]
    assert main([*command, "--series", chosen]) == 0
    assert "n1" in capsys.readouterr().out
    assert main(command) == 2
    assert "error: 2 DICOM series: " in capsys.readouterr().err


def test_a_damaged_file_of_another_series_or_folder_is_no_hindrance(tmp_path):
    uid = write_dicom_series(CT, tmp_path / "a")
    other_series(tmp_path / "b")
    for folder in ("a", "b"):
        file = tmp_path / folder / "005.dcm"
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"the DICOM file is damaged: \S*a/005\.dcm"):
        read_volume(tmp_path, series=uid)
    write_dicom_series(CT, tmp_path / "c")
    shutil.copy(tmp_path / "b" / "005.dcm", tmp_path / "c" / "damaged.dcm")
    chosen = pydicom.dcmread(tmp_path / "c" / "000.dcm").SeriesInstanceUID
    assert is_ct(read_volume(tmp_path, series=chosen).image)


def test_an_enhanced_ct_beside_its_localizer_is_read(tmp_path, caplog):
    write_dicom_series(CT, tmp_path)
    (scout, *rest) = sorted(tmp_path.iterdir())
    for file in rest:
        file.unlink()
    change_dicom(scout, SeriesInstanceUID=generate_uid(), **LOCALIZER)
    write_frames(CT, tmp_path / "ct", [3, 0, 4, 1, 5, 2])
    assert is_ct(read_volume(tmp_path).image)
    assert len(caplog.messages) == 1


@pytest.fixture(autouse=True)
def _all_messages(caplog):
    caplog.set_level(logging.INFO, logger="nodulemc")


@pytest.mark.parametrize("name", ["DICOMDIR", "IM000001", "000.dcm"])
def test_one_file_of_a_series_asks_for_its_folder(tmp_path, name):
    write_dicom_series(CT, tmp_path)
    kind = {"SOPClassUID": MediaStorageDirectoryStorage, "PixelData": None} if name == "DICOMDIR" else {}
    change_dicom(tmp_path / "000.dcm", **kind)
    (tmp_path / "000.dcm").rename(tmp_path / name)
    with pytest.raises(ImageError, match=rf"a single DICOM file: \S*{name}: give the folder that holds the series"):
        read_volume(tmp_path / name)
