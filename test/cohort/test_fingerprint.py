import os
import shutil
from dataclasses import replace

import pytest
import SimpleITK as sitk
from conftest import make_ct

from nodulemc.cohort.fingerprint import hash_inputs, stat_signature
from nodulemc.cohort.scan import Scan
from nodulemc.errors import ImageError
from nodulemc.points.reading import Nodule

POINTS = (Nodule("n", (1.0, 2.0, 3.0)),)


def scan_of(path, points=POINTS) -> Scan:
    return Scan(path.name, path, points)


def test_ct_hash_is_the_files_own(tmp_path):
    # Of bytes(k % 251 for k in range(2049)), from BLAKE3's own test vectors.
    (tmp_path / "a.mha").write_bytes(bytes(k % 251 for k in range(2049)))
    vector = "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"
    assert hash_inputs(scan_of(tmp_path / "a.mha")).ct == vector


def test_touched_file_looks_different_but_has_the_same_content(tmp_path):
    path = tmp_path / "a.mha"
    path.write_bytes(b"voxels")
    before = hash_inputs(scan_of(path))
    assert stat_signature(scan_of(path)) == before.signature
    os.utime(path, ns=(1, 1))
    after = hash_inputs(scan_of(path))
    assert after.signature != before.signature
    assert after.same_content(before)


def touch_nothing_but_time(path):
    """Another content of the same length and time."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("file", ["ct", "points"])
def test_other_content(tmp_path, file):
    paths = {"ct": tmp_path / "a.mha", "points": tmp_path / "a.json"}
    for path in paths.values():
        path.write_bytes(b"abc")
    scan = scan_of(paths["ct"], paths["points"])
    before = hash_inputs(scan)
    touch_nothing_but_time(paths[file])
    assert not hash_inputs(scan).same_content(before)
    assert (hash_inputs(scan).ct == before.ct) == (file == "points")


def test_points_in_several_files(tmp_path):
    """A folder with a DICOM SEG, and a .mhd with its voxels beside it."""
    (tmp_path / "ct.mha").write_bytes(b"ct")
    (tmp_path / "folder").mkdir()
    sitk.WriteImage(make_ct(size=(4, 4, 4)), str(tmp_path / "labels.mhd"))
    for points, changed in (("folder", tmp_path / "folder" / "seg.dcm"), ("labels.mhd", tmp_path / "labels.raw")):
        if not changed.exists():
            changed.write_bytes(b"segments")
        scan = scan_of(tmp_path / "ct.mha", tmp_path / points)
        before = hash_inputs(scan)
        changed.write_bytes(b"others")
        assert not hash_inputs(scan).same_content(before)
        assert stat_signature(scan) != before.signature


@pytest.mark.parametrize("points", [(Nodule("m", (1.0, 2.0, 3.0)),), (Nodule("n", (1.0, 2.0, 3.5)),), ()])
def test_other_points_in_the_manifest(tmp_path, points):
    (tmp_path / "a.mha").touch()
    scan = scan_of(tmp_path / "a.mha")
    other = replace(scan, points=points)
    assert stat_signature(other) != stat_signature(scan)
    assert not hash_inputs(other).same_content(hash_inputs(scan))


@pytest.mark.parametrize("header", ["a.mhd", "a.MHA", ".a.mhd"])
def test_the_voxels_beside_a_header_count(tmp_path, header):
    sitk.WriteImage(make_ct(), str(tmp_path / "a.mhd"))
    scan = scan_of((tmp_path / "a.mhd").rename(tmp_path / header))
    before = hash_inputs(scan)
    for part in (scan.path, tmp_path / "a.raw"):
        content = part.read_bytes()
        part.write_bytes(content.replace(b"1", b"2"))
        assert not hash_inputs(scan).same_content(before)
        part.write_bytes(content)
        assert hash_inputs(scan).same_content(before)
    (tmp_path / "a.raw").unlink()
    assert stat_signature(scan) != before.signature


def test_every_file_of_a_dicom_folder_counts(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / name).write_text(name)
    scan = scan_of(folder)
    before = hash_inputs(scan)
    (folder / "1").rename(folder / "3")  # what the files hold is the same, their order is not
    assert not hash_inputs(scan).same_content(before)
    (folder / "3").rename(folder / "1")
    assert hash_inputs(scan).same_content(before)
    (folder / "4").touch()
    assert stat_signature(scan) != before.signature


def test_a_hidden_file_of_a_dicom_folder_changes_its_look_only(tmp_path):
    (tmp_path / "1").write_text("1")
    before = hash_inputs(scan_of(tmp_path))
    (tmp_path / ".DS_Store").touch()
    after = hash_inputs(scan_of(tmp_path))
    assert after.signature != before.signature  # it may be what reading complains of
    assert after.same_content(before)


def test_files_in_folders_below_count_but_hidden_folders_do_not(tmp_path):
    (tmp_path / "study" / "series").mkdir(parents=True)
    (tmp_path / "study" / "series" / "1").write_text("1")
    before = hash_inputs(scan_of(tmp_path))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "2").touch()
    assert hash_inputs(scan_of(tmp_path)).same_content(before)
    (tmp_path / "study" / "series" / "1").write_text("2")
    assert not hash_inputs(scan_of(tmp_path)).same_content(before)


@pytest.mark.skipif(os.sep != "/", reason="names that are not UTF-8")
def test_names_that_are_not_utf_8(tmp_path):
    for name in (b"\xe9", b"\xe8"):
        (tmp_path / os.fsdecode(name)).touch()
    assert hash_inputs(scan_of(tmp_path)).ct


def test_a_copy_elsewhere_looks_different_but_has_the_same_content(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.mha").write_bytes(b"voxels")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (hash_inputs(scan_of(tmp_path / folder / "a.mha")) for folder in ("one", "two"))
    assert one.signature != two.signature
    assert one.same_content(two)


@pytest.mark.parametrize("pipe", ["ct.mha", "points.json"])
def test_a_pipe_is_refused(tmp_path, pipe):
    for name in {"ct.mha", "points.json"} - {pipe}:
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / pipe)
    scan = scan_of(tmp_path / "ct.mha", tmp_path / "points.json")
    assert stat_signature(scan)
    with pytest.raises(ImageError, match=f"not a regular file: .*{pipe}"):
        hash_inputs(scan)


def test_a_missing_file_has_a_look_too(tmp_path):
    scan = scan_of(tmp_path / "a.mha")
    before = stat_signature(scan)
    scan.path.touch()
    assert stat_signature(scan) != before
