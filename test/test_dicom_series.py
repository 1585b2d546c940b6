import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from dicom import write_dicom_series, write_frames
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from nodulemc.errors import ImageError
from nodulemc.volume import read_volume

CT = make_ct(size=(20, 24, 6), direction=rotation(8, 20, -5))


def change(file: Path, **attributes: object) -> None:
    """Rewrite a DICOM file with other attributes; None takes one away."""
    data = pydicom.dcmread(file)
    for name, value in attributes.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    data.save_as(file)


@pytest.mark.parametrize("name", ["ImageOrientationPatient", "PixelSpacing", "ImagePositionPatient"])
@pytest.mark.parametrize("slices", [slice(None), slice(3, 4)], ids=["all", "one"])
def test_slices_without_geometry_are_refused(tmp_path, name, slices):
    write_dicom_series(CT, tmp_path)
    for file in sorted(tmp_path.iterdir())[slices]:
        change(file, **{name: None})
    with pytest.raises(ImageError, match=r"Image Position|image orientation is ''|pixel spacing is ''"):
        read_volume(tmp_path)


def test_an_orientation_of_few_decimals_is_read(tmp_path):
    write_dicom_series(CT, tmp_path)
    for file in tmp_path.iterdir():
        cosines = pydicom.dcmread(file).ImageOrientationPatient
        change(file, ImageOrientationPatient=[f"{cosine:.3f}" for cosine in cosines])
    assert read_volume(tmp_path).image.GetDirection() == pytest.approx(CT.GetDirection(), abs=1e-3)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("lost", [2, 200])
def test_pixel_data_that_are_too_short_are_refused(tmp_path, implicit, lost):
    write_dicom_series(CT, tmp_path)
    for k, file in enumerate(sorted(tmp_path.iterdir())):
        data = pydicom.dcmread(file)
        if k == 3:
            data.PixelData = data.PixelData[:-lost]
        if implicit:
            data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data.save_as(file, implicit_vr=implicit, little_endian=True)
    with pytest.raises(ImageError, match=r"no pixel data of 960 bytes: \S*003\.dcm"):
        read_volume(tmp_path)


@pytest.mark.parametrize("kind", ["explicit", "implicit", "compressed"])
def test_frames_that_state_an_even_stack_are_read(tmp_path, kind):
    write_frames(CT, tmp_path / "ct.dcm", range(6))
    data = pydicom.dcmread(tmp_path / "ct.dcm")
    if kind == "compressed":
        data.compress(RLELossless)
    elif kind == "implicit":
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data.save_as(tmp_path / "ct.dcm", implicit_vr=kind == "implicit", little_endian=True)
    image = read_volume(tmp_path).image
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(CT))
    for index in ((0, 0, 0), (19, 23, 5)):
        expected = CT.TransformIndexToPhysicalPoint(index)
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)


def test_frames_against_their_normal_are_read(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", range(5, -1, -1))
    image = read_volume(tmp_path).image
    assert image.GetSize() == CT.GetSize()
    again = sitk.Resample(image, CT, sitk.Transform(), sitk.sitkNearestNeighbor, -3000)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(again), sitk.GetArrayViewFromImage(CT))


def test_slices_that_state_a_negative_spacing_are_placed_by_their_positions(tmp_path):
    write_dicom_series(CT, tmp_path)
    for file in tmp_path.iterdir():
        change(file, SpacingBetweenSlices=-CT.GetSpacing()[2])
    image = read_volume(tmp_path).image
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(CT))
    for index in ((0, 0, 0), (19, 23, 5)):
        expected = CT.TransformIndexToPhysicalPoint(index)
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("frames", [[0, 1, 2, 4, 5], [5, 4, 3, 1, 0], [0, 2, 1, 3, 5], [0, 1, 1, 2, 3, 4]])
def test_frames_that_are_no_even_stack_are_refused(tmp_path, frames):
    write_frames(CT, tmp_path / "ct.dcm", frames)
    with pytest.raises(ImageError, match="from its place in an even stack"):
        read_volume(tmp_path)


def test_frames_of_different_rescaling_are_refused(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", range(6), intercepts=[-1024, -1024, 0, 0, 0, 0])
    with pytest.raises(ImageError, match="frames of different orientation, spacing or rescaling"):
        read_volume(tmp_path)


def test_frames_cut_short_are_refused(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", range(6))
    change(tmp_path / "ct.dcm", PixelData=bytes(5000))
    with pytest.raises(ImageError, match="no pixel data of 5760 bytes"):
        read_volume(tmp_path)


def test_a_slice_without_pixels_is_refused(tmp_path):
    write_dicom_series(CT, tmp_path)
    change(tmp_path / "005.dcm", PixelData=None)
    with pytest.raises(ImageError, match=r"the DICOM file is damaged: \S*005\.dcm"):
        read_volume(tmp_path)


@pytest.mark.parametrize("length", [0, 140, 190, 500, 1200])
def test_a_slice_cut_anywhere_is_refused(tmp_path, length):
    write_dicom_series(CT, tmp_path)
    (tmp_path / "005.dcm").write_bytes((tmp_path / "005.dcm").read_bytes()[:length])
    with pytest.raises(ImageError, match=r"the DICOM file is damaged: \S*005\.dcm"):
        read_volume(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read its files")
def test_a_slice_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    write_dicom_series(CT, tmp_path)
    (tmp_path / "005.dcm").chmod(0)
    monkeypatch.chdir(tmp_path)  # pytest's own folder is closed to others
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match=r"Permission denied.*005\.dcm"):
            read_volume(".")
    finally:
        os.seteuid(0)
