"""NIfTI files against nibabel: its affine, turned from RAS to LPS, and its get_fdata."""

import gzip
import struct
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError

SIZE = (9, 8, 7)
AFFINE = np.array([[-0.7, 0, 0, 120], [0, -0.8, 0, 90], [0, 0, 1.5, -300], [0, 0, 0, 1.0]])
TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64)


def write(path, affine=AFFINE, *, sform=2, qform=0, qform_affine=None, voxels=None, kind=nibabel.Nifti1Image):
    """A file by nibabel; a form whose code is 0 keeps the numbers that nibabel gives it."""
    voxels = np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE) if voxels is None else voxels
    image = kind(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine if qform_affine is None else qform_affine, qform)
    image.set_sform(affine, sform)
    image.to_filename(path)
    return path


def patch_bytes(path, offset, layout, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, content, offset, *values)
    path.write_bytes(content)


def check_geometry(image, affine, tolerance=1e-4):
    for index in np.ndindex(2, 2, 2):
        index = [int(k * (n - 1)) for k, n in zip(index, image.GetSize(), strict=True)]
        x, y, z, _ = affine @ [*index, 1]
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx([-x, -y, z], abs=tolerance)


def check_against_nibabel(path):
    image, other = read_volume(path).image, nibabel.load(path)
    check_geometry(image, other.affine)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image).T, np.squeeze(other.get_fdata()))


@st.composite
def orientations(draw):
    """A rotation, mirrored or not, its axes in any order, times a spacing; and an origin."""
    turn = rotation(*(draw(st.floats(-180, 180)) for _ in range(3)))
    mirror = np.diag([draw(st.sampled_from([1.0, -1.0])) for _ in range(3)])
    order = np.eye(3)[list(draw(st.permutations(range(3))))]
    affine = np.eye(4)
    affine[:3, :3] = turn @ mirror @ order * [draw(st.floats(0.3, 5)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return affine


@pytest.mark.heavy
@settings(max_examples=80, deadline=None)
@given(
    orientations(),
    st.sampled_from([(1, 0), (0, 2), (3, 4), (1, 1)]),
    st.sampled_from(TYPES),
    st.sampled_from("<>"),
    st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    st.sampled_from([SIZE, (*SIZE, 1), (*SIZE, 1, 1)]),
    st.sampled_from(["ct.nii", "ct.nii.gz", "CT.Nii.Gz", "Ct.NII"]),
)
def test_any_orientation_type_and_version_is_what_nibabel_reads(affine, codes, type_, order, kind, shape, name):
    voxels = np.random.default_rng(1).integers(0, 120, shape).astype(type_)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(type_)
    image = kind(voxels, affine, header)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        content = image.to_bytes()
        path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
        plain = Path(folder) / ("truth.nii.gz" if name.lower().endswith("gz") else "truth.nii")
        plain.write_bytes(path.read_bytes())  # nibabel takes lower case only
        read, other = read_volume(path).image, nibabel.load(plain)
        check_geometry(read, other.affine, 1e-3)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(read).T, other.get_fdata().reshape(SIZE))
        assert sitk.GetArrayViewFromImage(read).dtype == type_


@pytest.mark.heavy
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]),
    st.floats(2**-13, 100, width=32),
    st.floats(-2000, 2000, width=32),
    st.sampled_from("<>"),
    st.booleans(),
    st.integers(2, 40),
)
def test_rescaled_voxels_are_what_nibabel_makes_of_them(type_, slope, intercept, order, compressed, slices):
    stored = np.random.default_rng(slices).integers(0, 200, (61, 53, slices)).astype(type_)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(type_)
    image = nibabel.Nifti1Image(stored, AFFINE, header)
    content = bytearray(image.to_bytes())
    struct.pack_into(f"{order}2f", content, 112, -slope, intercept)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("ct.nii.gz" if compressed else "ct.nii")
        path.write_bytes(gzip.compress(content, 1) if compressed else content)
        expected = nibabel.load(path).get_fdata()
        read = sitk.GetArrayFromImage(read_volume(path).image).T
    assert read.dtype == (np.float64 if np.dtype(type_).itemsize == 8 else np.float32)
    np.testing.assert_array_equal(read, expected.astype(read.dtype))


@pytest.mark.parametrize("sibling", ["ct.nii", "ct.hdr", "ct.img", "ct.nii.gz"])
@pytest.mark.parametrize("slope", [1.0, 0.25])
def test_the_file_that_is_named_is_read(tmp_path, sibling, slope):
    name = "ct.nii" if sibling == "ct.nii.gz" else "ct.nii.gz"
    image = nibabel.Nifti1Image(np.zeros(SIZE, np.int16), AFFINE)
    image.header.set_slope_inter(slope, -1000)
    image.dataobj[...] = 400
    image.to_filename(tmp_path / name)
    if sibling.endswith((".hdr", ".img")):
        nibabel.Nifti1Pair(np.full(SIZE, 7, np.int16), AFFINE).to_filename(tmp_path / "ct.img")
    else:
        write(tmp_path / sibling, voxels=np.full(SIZE, 7, np.int16))
    check_against_nibabel(tmp_path / name)


@pytest.mark.parametrize("shear", [1e-5, 3e-4, 5e-3])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0)])
def test_a_slightly_sheared_affine_is_read_as_it_is(tmp_path, shear, axes):
    affine = AFFINE.copy()
    affine[axes] += shear * abs(AFFINE[axes[1], axes[1]])
    check_against_nibabel(write(tmp_path / "ct.nii.gz", affine))


@pytest.mark.parametrize("shear", [0.02, 0.3])
def test_a_sheared_affine_is_refused(tmp_path, shear):
    affine = AFFINE.copy()
    affine[1, 2] += shear * 1.5
    with pytest.raises(ImageError, match=r"the direction matrix is .*resample a sheared scan"):
        read_volume(write(tmp_path / "ct.nii", affine))


def shifted(mm):
    other = AFFINE.copy()
    other[2, 3] += mm
    return other


def turned(degrees):
    other = AFFINE.copy()
    other[:3, :3] = rotation(0, degrees, 0) @ other[:3, :3]
    return other


@pytest.mark.parametrize(
    ("other", "apart"), [(shifted(-0.2), "0.20"), (shifted(20), "20.00"), (turned(2), "0.4"), (turned(90), "")]
)
@pytest.mark.parametrize("codes", [(1, 2), (1, 1), (4, 1)])
def test_two_geometries_are_refused(tmp_path, other, apart, codes):
    path = write(tmp_path / "ct.nii", qform=codes[0], sform=codes[1], qform_affine=other)
    with pytest.raises(ImageError, match=f"qform and sform place a corner of the scan {apart}.* mm apart"):
        read_volume(path)


@pytest.mark.parametrize("other", [shifted(0.09), turned(0.3)])
def test_of_two_geometries_that_nearly_agree_the_sform_is_read(tmp_path, other):
    check_against_nibabel(write(tmp_path / "ct.nii", qform=1, qform_affine=other))


def test_a_form_that_is_not_set_does_not_count(tmp_path):
    check_against_nibabel(write(tmp_path / "q.nii", turned(5), qform=1, sform=0))
    path = write(tmp_path / "s.nii", qform=0)
    patch_bytes(path, 256, "6f", 0.5, 0.5, 0.5, 900, 900, 900)
    check_against_nibabel(path)


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([-1.0, 1.0]),
    st.floats(-1e-3, 1e-3),
    st.sampled_from([(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0.5)]),
    st.integers(0, 2),
)
def test_forms_of_one_affine_agree_where_the_quaternion_is_ill_conditioned(mirror, tilt, axis, about):
    """A whole scan turned by 180°, or 90°, and a little more, of which 32 bits keep few digits."""
    little = np.radians([tilt if k == about else 0 for k in range(3)]) * 57
    affine = np.eye(4)
    turn = rotation(*(180 * np.array(axis))) @ rotation(*np.degrees(little))
    affine[:3, :3] = turn @ np.diag([1, 1, mirror]) * [0.7, 0.7, 1]
    affine[:3, 3] = [-180, 170, -300]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "ct.nii", affine, qform=1, voxels=np.zeros((512, 512, 4), np.int8))
        check_geometry(read_volume(path).image, nibabel.load(path).affine)


@pytest.mark.parametrize(("stated", "read"), [(1.0, True), (0.0, True), (-1.0, True), (3.0, True), (-2.0, False)])
def test_the_handedness_of_the_qform(tmp_path, stated, read):
    path = write(tmp_path / "ct.nii", qform=1, sform=0)
    patch_bytes(path, 76, "f", stated)
    if read:
        check_against_nibabel(path)
    else:
        with pytest.raises(ImageError, match=r"the qform's pixdim\[0\] is -2"):
            read_volume(path)


@pytest.mark.parametrize(("x_spacing", "read"), [(0.705, True), (0.72, False)])
def test_the_spacing_of_pixdim_must_be_the_sforms(tmp_path, x_spacing, read):
    path = write(tmp_path / "ct.nii")
    patch_bytes(path, 80, "f", x_spacing)  # over nine voxels 0.045 and 0.18 mm
    if read:
        check_against_nibabel(path)
    else:
        with pytest.raises(ImageError, match=r"the spacing is 0.72 0.8 1.5 by pixdim, 0.7 0.8 1.5 by the sform"):
            read_volume(path)


@pytest.mark.parametrize(("unit", "read"), [(0, True), (2, True), (10, True), (1, False), (3, False), (11, False)])
def test_other_units_than_mm_are_refused(tmp_path, unit, read):
    path = write(tmp_path / "ct.nii")
    patch_bytes(path, 123, "B", unit)  # 8: seconds
    if read:
        check_against_nibabel(path)
    else:
        with pytest.raises(ImageError, match=r"the units are (micro)?metres: .*: write it in mm"):
            read_volume(path)


@pytest.mark.parametrize("offset", range(0, 348, 2))
def test_flipped_bits_in_the_header_never_move_the_scan_unseen(tmp_path, offset):
    """Either the file is refused, or it is read as nibabel reads it."""
    path = write(tmp_path / "ct.nii", qform=1)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x40
    path.write_bytes(content)
    try:
        image = read_volume(path).image
    except ImageError:
        return
    other = nibabel.load(path)
    check_geometry(image, other.affine)
    np.testing.assert_allclose(sitk.GetArrayViewFromImage(image).T, np.squeeze(other.get_fdata()), rtol=1e-7)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("slope", [1.0, 0.5])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cut_files_are_refused(tmp_path, kind, slope, suffix):
    image = kind(np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40)).astype(np.int16), AFFINE)
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    for length in (0, 3, 347, 500, len(content) // 2, len(content) - 1):
        (tmp_path / f"ct{suffix}").write_bytes(content[:length])
        with pytest.raises(ImageError):
            read_volume(tmp_path / f"ct{suffix}")


@pytest.mark.parametrize("zeros", [1, 512, 3 << 20])
def test_zeros_behind_the_gzip_stream_are_padding(tmp_path, zeros):
    path = write(tmp_path / "ct.nii.gz", voxels=np.random.default_rng(0).integers(0, 9, (50, 60, 70)).astype(np.int16))
    path.write_bytes(path.read_bytes() + bytes(zeros))
    check_against_nibabel(path)
    path.write_bytes(path.read_bytes() + b"\1")
    with pytest.raises(ImageError, match=r"corrupt|end too early"):
        read_volume(path)


def test_a_ct_of_simpleitk_comes_back(tmp_path):
    image = make_ct(direction=rotation(10, -5, 20))
    sitk.WriteImage(image, str(tmp_path / "ct.nii"))
    check_against_nibabel(tmp_path / "ct.nii")
