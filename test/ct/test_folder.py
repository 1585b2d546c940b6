"""Folders of many CTs, as downloads lay them out."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct
from dicom import change_dicom, write_dicom_series

from nodulemc.ct import dicom as dicom_series  # noqa: F401  that it has the unchanged reader
from nodulemc.ct import dicom_file
from nodulemc.ct.folder import CtFolder, CtPlace
from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError

CT = make_ct(size=(20, 24, 6))
OTHER = make_ct(size=(20, 24, 6), seed=7)


def voxels(place: CtPlace) -> np.ndarray:
    return sitk.GetArrayFromImage(read_volume(place.path, series=place.series).image)


def idc(folder: Path, ct: sitk.Image, patient: str) -> str:
    """A series as idc-index lays it out: collection/PatientID/StudyInstanceUID/Modality_SeriesInstanceUID."""
    uid = write_dicom_series(ct, folder / "made")
    (folder / "nlst" / patient).mkdir(parents=True, exist_ok=True)
    (folder / "made").rename(folder / "nlst" / patient / f"CT_{uid}")
    return uid


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers are read."""
    paths = []
    original = dicom_file.read_file
    monkeypatch.setattr(dicom_file, "read_file", lambda path: paths.append(path) or original(path))
    return paths


def test_a_series_is_found_wherever_it_lies_by_two_headers_a_folder(tmp_path: Path, opened: list[Path]):
    first, second = idc(tmp_path, CT, "100"), idc(tmp_path, OTHER, "101")
    # TCIA's: PatientID / date and study's last digits / number, description and the series' last digits.
    third = write_dicom_series(CT, tmp_path / "LIDC-IDRI-0001" / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192")
    sitk.WriteImage(OTHER, str(tmp_path / "1.2.3.mha"))
    (tmp_path / "LIDC-IDRI-0001" / "069.xml").write_text("<LidcReadMessage/>")
    (tmp_path / "manifest.tcia").write_text("downloadServerUrl=…")
    cts = CtFolder(tmp_path)
    places = [cts.find(uid) for uid in (first, second, third, "1.2.3")]
    assert [place.series for place in places] == [first, second, third, None]
    assert [place.path.name for place in places[2:]] == ["3000566.000000-NA-03192", "1.2.3.mha"]
    assert sorted(path.name for path in opened) == ["000.dcm"] * 3 + ["005.dcm"] * 3 + ["manifest.tcia"] * 2
    for place, ct in zip(places, (CT, OTHER, CT, OTHER), strict=True):
        np.testing.assert_array_equal(voxels(place), sitk.GetArrayViewFromImage(ct))


def test_series_mixed_in_one_folder(tmp_path: Path):
    uids = []
    for name, ct in (("a", CT), ("b", OTHER), ("c", CT)):
        uids.append(write_dicom_series(ct, tmp_path / name))
    (tmp_path / "mixed").mkdir()
    for name in "abc":
        for file in (tmp_path / name).iterdir():
            file.rename(tmp_path / "mixed" / f"{name}{file.name}")
    cts = CtFolder(tmp_path)
    for uid, ct in zip(uids, (CT, OTHER, CT), strict=True):
        assert cts.find(uid) == CtPlace(tmp_path / "mixed", uid)
        np.testing.assert_array_equal(voxels(cts.find(uid)), sitk.GetArrayViewFromImage(ct))
    # Its ends are of one series: the one between them is found when it is asked for.
    for file in (tmp_path / "mixed").glob("c*"):
        change_dicom(file, SeriesInstanceUID=uids[0])
    assert CtFolder(tmp_path).find(uids[1]) == CtPlace(tmp_path / "mixed", uids[1])


def test_two_copies_are_refused_and_both_named(tmp_path: Path):
    uid, single = idc(tmp_path, CT, "100"), idc(tmp_path, CT, "101")
    copy = tmp_path / "nlst" / "102"
    shutil.copytree(tmp_path / "nlst" / "100", copy)
    with pytest.raises(ImageError, match=f"series {uid} is there twice: .*100/CT_.*: keep one of it and .*102/CT_"):
        CtFolder(tmp_path).find(uid)
    assert CtFolder(tmp_path).find(single).path.name == f"CT_{single}"
    shutil.rmtree(copy)
    sitk.WriteImage(CT, str(tmp_path / f"{uid}.mha"))
    with pytest.raises(ImageError, match=rf"twice: .*{uid}\.mha: keep one of it and .*100/CT_{uid}"):
        CtFolder(tmp_path).find(uid)


def test_a_missing_ct_would_be_a_file(tmp_path: Path):
    idc(tmp_path, CT, "100")
    assert CtFolder(tmp_path).find("1.2") == CtPlace(tmp_path / "1.2.mha")
    assert CtFolder(tmp_path / "absent").find("1.2") == CtPlace(tmp_path / "absent" / "1.2.mha")


def test_links_are_followed_and_circles_ended(tmp_path: Path):
    uid = idc(tmp_path / "all", CT, "100")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "patient").symlink_to(tmp_path / "all" / "nlst" / "100")
    (tmp_path / "part" / "again").symlink_to(tmp_path / "part")
    (tmp_path / "part" / "nowhere.dcm").symlink_to("nowhere")
    place = CtFolder(tmp_path / "part").find(uid)
    assert place == CtPlace(tmp_path / "part" / "patient" / f"CT_{uid}", uid)
    np.testing.assert_array_equal(voxels(place), sitk.GetArrayViewFromImage(CT))


def test_damaged_slices_do_not_hide_their_series(tmp_path: Path):
    uid = idc(tmp_path, CT, "100")
    first, *_, last = sorted((tmp_path / "nlst" / "100" / f"CT_{uid}").iterdir())
    first.write_bytes(b"")
    last.write_bytes(last.read_bytes()[:300])
    place = CtFolder(tmp_path).find(uid)
    with pytest.raises(ImageError, match=f"the DICOM file is damaged: .*{first.name}"):
        voxels(place)


def test_a_copy_for_another_process_is_small(tmp_path: Path):
    uid = idc(tmp_path, CT, "100")
    cts = CtFolder(tmp_path)
    size = len(pickle.dumps(cts))
    place = cts.find(uid)
    assert len(pickle.dumps(cts)) == size
    assert pickle.loads(pickle.dumps(cts)).find(uid) == place  # noqa: S301
