"""NRRD files against SimpleITK, where it reads them at all."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation

from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError

SIZE = (9, 8, 7)
CT = make_ct(size=SIZE, direction=rotation(4, -3, 30))
STEPS = "(0.7,0.01,0) (-0.01,0.8,0) (0,0,-1.5)"


def check_same(image, expected):
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(expected))
    assert image.GetPixelID() == expected.GetPixelID()
    for geometry in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(image, geometry)() == pytest.approx(getattr(expected, geometry)(), abs=1e-12)


def write(path, voxels=None, encoding="raw", **changes):
    """A file of these fields, None for none."""
    voxels = np.arange(np.prod(SIZE), dtype="<i2") if voxels is None else voxels
    fields = {
        "type": "int16", "dimension": "3", "space": "left-posterior-superior", "sizes": "9 8 7",
        "space directions": STEPS, "endian": "little", "encoding": encoding, "space origin": "(1,-2,3.5)",
    }  # fmt: skip
    fields |= {key.replace("_", " "): value for key, value in changes.items()}
    head = "NRRD0004\n# a comment\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v) + "key:=value\n\n"
    content = voxels.tobytes()
    path.write_bytes(head.encode() + (gzip.compress(content) if encoding != "raw" else content))
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz"])
@pytest.mark.parametrize("space", ["left-posterior-superior", "LPS", "RAS", "right-anterior-superior", "LAS"])
def test_every_space_is_what_simpleitk_reads(tmp_path, space, encoding):
    path = write(tmp_path / "ct.nrrd", space=space, encoding=encoding)
    check_same(read_volume(path).image, sitk.ReadImage(str(path)))


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("signed char", "i1"), ("uchar", "u1"), ("short", "i2"), ("unsigned short", "u2"), ("int", "i4"),
        ("uint32_t", "u4"), ("float", "f4"), ("double", "f8"),
    ],
)  # fmt: skip
def test_every_type_and_byte_order_is_what_simpleitk_reads(tmp_path, name, type_, endian):
    voxels = np.random.default_rng(0).integers(0, 100, SIZE).astype((">" if endian == "big" else "<") + type_)
    path = write(tmp_path / "ct.nrrd", voxels, type=name, endian=endian)
    check_same(read_volume(path).image, sitk.ReadImage(str(path)))


@pytest.mark.parametrize(
    ("sizes", "steps"),
    [("9 8 7 1", f"{STEPS} none"), ("1 9 8 7", f"none {STEPS}"), ("1 9 8 7 1", f"none {STEPS} none")],
)
@pytest.mark.parametrize("kind", ["list", "???", "time", "none"])
def test_further_axes_of_one_voxel_are_left_out(tmp_path, sizes, steps, kind):
    expected = sitk.ReadImage(str(write(tmp_path / "plain.nrrd")))
    kinds = " ".join("domain" if axis != "none" else kind for axis in steps.split())
    path = write(
        tmp_path / "ct.nrrd", dimension=str(len(sizes.split())), sizes=sizes, space_directions=steps, kinds=kinds
    )
    check_same(read_volume(path).image, expected)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["ct.nrrd", "CT.NRRD"])
def test_one_volume_in_four_dimensions_is_that_volume(tmp_path, name, compressed):
    sitk.WriteImage(sitk.JoinSeries([CT], 3.5, 2.0), str(tmp_path / "ct.nrrd"), useCompression=compressed)
    path = (tmp_path / "ct.nrrd").rename(tmp_path / name)
    check_same(read_volume(path).image, CT)


def test_a_space_with_time_is_read(tmp_path):
    expected = sitk.ReadImage(str(write(tmp_path / "plain.nrrd", space="RAS")))
    steps = STEPS.replace(")", ",0)") + " (0,0,0,2)"
    for space in ("right-anterior-superior-time", "RAST"):
        path = write(tmp_path / "ct.nrrd", space=space, dimension="4", sizes="9 8 7 1", space_directions=steps,
                     space_origin="(1,-2,3.5,9)")  # fmt: skip
        check_same(read_volume(path).image, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimension": "4", "sizes": "9 8 7 2", "space_directions": f"{STEPS} none"}, "has size 9×8×7×2"),
        ({"dimension": "4", "sizes": "9 8 7 1", "space_directions": f"{STEPS} (1,1,1)"}, "give three vectors"),
        ({"dimension": "4", "sizes": "9 8 7 1"}, "give three vectors"),
        ({"space_directions": f"{STEPS} none"}, "give three vectors"),
        ({"space_directions": STEPS.replace("(0,0,-1.5)", "(0,0,0)")}, "give three vectors"),
        ({"space_directions": STEPS.replace("(0,0,-1.5)", "(0,0.5,-1.5)")}, "the direction matrix is"),
        ({"space": None, "space_dimension": "3"}, "no patient coordinates"),
        ({"space": "scanner-xyz"}, "no patient coordinates"),
        ({"space": "t"}, "no patient coordinates"),
        ({"endian": None}, "the endian is no"),
        ({"type": "block"}, "of type 'block'"),
        ({"dimension": "99"}, "'99' dimensions"),
        ({"sizes": "9 8 " + "7" * 5000}, "give 3 whole numbers"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_other_headers_are_refused(tmp_path, changes, message):
    with pytest.raises(ImageError, match=message):
        read_volume(write(tmp_path / "ct.nrrd", **changes))


def test_zeros_behind_compressed_voxels_are_padding(tmp_path):
    path = write(tmp_path / "ct.nrrd", encoding="gzip")
    expected = read_volume(path).image
    path.write_bytes(path.read_bytes() + bytes(512))
    check_same(read_volume(path).image, expected)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_cut_files_are_refused(tmp_path, encoding):
    content = write(tmp_path / "whole.nrrd", encoding=encoding).read_bytes()
    for length in (0, 30, len(content) // 2, len(content) - 1):
        (tmp_path / "ct.nrrd").write_bytes(content[:length])
        with pytest.raises(ImageError):
            read_volume(tmp_path / "ct.nrrd")
