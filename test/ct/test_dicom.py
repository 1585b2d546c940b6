import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from dicom import change_dicom, write_dicom_series, write_frames
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from nodulemc.ct.volume import read_volume
from nodulemc.errors import ImageError

CT = make_ct(size=(20, 24, 6), direction=rotation(8, 20, -5))


@pytest.mark.parametrize("name", ["ImageOrientationPatient", "PixelSpacing", "ImagePositionPatient"])
@pytest.mark.parametrize("slices", [slice(None), slice(3, 4)], ids=["all", "one"])
def test_slices_without_geometry_are_refused(tmp_path, name, slices):
    write_dicom_series(CT, tmp_path)
    for file in sorted(tmp_path.iterdir())[slices]:
        change_dicom(file, **{name: None})
    with pytest.raises(ImageError, match=r"Image Position|image orientation is ''|pixel spacing is ''"):
        read_volume(tmp_path)


def test_an_orientation_of_few_decimals_is_read(tmp_path):
    write_dicom_series(CT, tmp_path)
    for file in tmp_path.iterdir():
        cosines = pydicom.dcmread(file).ImageOrientationPatient
        change_dicom(file, ImageOrientationPatient=[f"{cosine:.3f}" for cosine in cosines])
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
        change_dicom(file, SpacingBetweenSlices=-CT.GetSpacing()[2])
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


def same_place(image: sitk.Image) -> bool:
    """Whether an image has CT's values at CT's places."""
    again = sitk.Resample(image, CT, sitk.Transform(), sitk.sitkNearestNeighbor, -3000)
    return np.array_equal(sitk.GetArrayViewFromImage(again), sitk.GetArrayViewFromImage(CT))


@pytest.mark.parametrize("frames", [[0, 2, 4, 1, 3, 5], [5, 1, 4, 0, 2, 3]])
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_in_any_order_are_sorted(tmp_path, frames, compressed):
    write_frames(CT, tmp_path / "ct.dcm", frames)
    if compressed:
        data = pydicom.dcmread(tmp_path / "ct.dcm")
        data.compress(RLELossless)
        data.save_as(tmp_path / "ct.dcm")
    image = read_volume(tmp_path).image
    assert image.GetSize() == CT.GetSize()
    assert same_place(image)


@pytest.mark.parametrize("parts", [[[0, 1, 2], [3, 4, 5]], [[1, 3, 5], [0, 2, 4]], [[5], [0, 1], [4, 2, 3]]])
def test_an_enhanced_ct_in_parts_is_joined(tmp_path, parts):
    for k, frames in enumerate(parts):
        write_frames(CT, tmp_path / f"{k}.dcm", frames)
        same = {"SeriesInstanceUID": "1.2.3", "ConcatenationUID": "1.2.4"}
        change_dicom(tmp_path / f"{k}.dcm", **same, InConcatenationNumber=k + 1, InConcatenationTotalNumber=len(parts))
    volume = read_volume(tmp_path)
    assert volume.series_uid == "1.2.3"
    assert volume.image.GetSize() == CT.GetSize()
    assert same_place(volume.image)
    (tmp_path / "1.dcm").unlink()
    with pytest.raises(ImageError, match=rf"{len(parts) - 1} of the series' {len(parts)} parts"):
        read_volume(tmp_path)


def test_a_deflated_enhanced_ct_is_read(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", [5, 0, 1, 4, 2, 3])
    data = pydicom.dcmread(tmp_path / "ct.dcm")
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "ct.dcm")
    assert same_place(read_volume(tmp_path).image)
    whole = (tmp_path / "ct.dcm").read_bytes()
    for lost in (40, len(whole) // 2):
        (tmp_path / "ct.dcm").write_bytes(whole[:-lost])
        with pytest.raises(ImageError):
            read_volume(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientID", "another"),
        ("PatientName", "Doe^Jane"),
        ("FrameOfReferenceUID", "1.2.4"),
        ("AcquisitionNumber", 2),
        ("ConvolutionKernel", "B80f"),
        ("ConvolutionKernel", ["Br38f", "3"]),
        ("SliceThickness", "5.0"),
        ("SeriesNumber", 9),
        ("StudyDate", "20200102"),
        ("KVP", "80"),
        ("Modality", "MR"),
        ("RescaleType", "US"),
    ],
)
def test_slices_of_more_than_one_acquisition_are_refused(tmp_path, name, value):
    usual = {"PatientID": "one", "PatientName": "Doe^John", "FrameOfReferenceUID": "1.2", "AcquisitionNumber": 1}
    usual |= {
        "ConvolutionKernel": "B30f",
        "SeriesNumber": 3,
        "StudyDate": "20190102",
        "KVP": "120",
        "RescaleType": "HU",
    }
    write_dicom_series(CT, tmp_path)
    for k, file in enumerate(sorted(tmp_path.iterdir())):
        change_dicom(file, **usual)
        if k >= 3:
            change_dicom(file, **{name: value})
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    shown = " ".join(value) if isinstance(value, list) else str(value)
    first = str(pydicom.dcmread(tmp_path / "000.dcm")[name].value)
    assert f"{name} is {shown!r}, and {first!r} in 000.dcm: {tmp_path / '003.dcm'}" in str(refused.value)


ONE = {
    "PatientID": "",
    "PatientName": "Doe^John",
    "PatientBirthDate": "19500102",
    "PatientSex": "M",
    "StudyInstanceUID": "1.2.5",
    "AcquisitionDate": "20190102",
    "SeriesDescription": "Lung 1.5",
    "ReconstructionDiameter": "360",
    "FilterType": "WEDGE_2",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "ContrastBolusAgent": "Iohexol",
    "ConvolutionKernel": "B30f",
}
OTHERS = [
    ("PatientBirthDate", "19600304"),
    ("PatientSex", "F"),
    ("StudyInstanceUID", "1.2.6"),
    ("AcquisitionDate", "20190203"),
    ("SeriesDescription", "Lung MPR"),
    ("ReconstructionDiameter", "250"),
    ("FilterType", "FLAT"),
    ("ImageType", ["DERIVED", "SECONDARY", "AXIAL"]),
    ("ImageType", ["ORIGINAL", "PRIMARY", "REFORMATTED", "CT_SOM5 SPI"]),
    ("ContrastBolusAgent", "NONE"),
    *((name, None) for name in ONE if name != "PatientID"),
]


def shown(value: object) -> str:
    return "none" if value is None else repr(" ".join(value) if isinstance(value, list) else value)


def write_two_reconstructions(folder: Path, **second: object) -> None:
    """CT as ``a/*.dcm``, which state ``ONE``, and as ``b/*.dcm`` 300 HU denser, half a slice further, of one series."""
    between = sitk.Cast(CT + 300, CT.GetPixelID())
    between.SetOrigin(CT.TransformContinuousIndexToPhysicalPoint((0, 0, 0.5)))
    uid = write_dicom_series(CT, folder / "a")
    write_dicom_series(between, folder / "b")
    change_dicom(*folder.glob("a/*"), **ONE)
    change_dicom(*folder.glob("b/*"), **ONE | {"SeriesInstanceUID": uid})
    change_dicom(*folder.glob("b/*"), **second)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_reconstructions_between_each_other_are_refused_by_whatever_tells_them_apart(tmp_path, name, value):
    write_two_reconstructions(tmp_path, **{name: value})
    change_dicom(*tmp_path.glob("*/*"), InstanceNumber=1)
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    assert f"{name} is {shown(value)}, and {shown(ONE[name])} in 000.dcm: {tmp_path / 'b'}" in str(refused.value)


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_a_stack_whose_header_changes_partway_is_refused(tmp_path, name, value):
    write_dicom_series(CT, tmp_path)
    files = sorted(tmp_path.iterdir())
    change_dicom(*files, **ONE)
    change_dicom(*files[3:], **{name: value})
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    assert f"{name} is {shown(value)}, and {shown(ONE[name])} in 000.dcm: {files[3]}" in str(refused.value)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("offset", [0, 6, 100])
def test_reconstructions_that_only_their_numbers_tell_apart_are_refused(tmp_path, offset, backwards):
    write_two_reconstructions(tmp_path)
    for k, file in enumerate(sorted(tmp_path.glob("b/*"), reverse=backwards)):
        change_dicom(file, InstanceNumber=k + 1 + offset)
    with pytest.raises(ImageError, match="slices of 2 reconstructions between each other: the InstanceNumber goes 1, "):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    "numbers", [range(12, 0, -1), [1] * 12, range(2, 26, 2), [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11]]
)
def test_numbers_of_one_stack_are_read(tmp_path, numbers):
    write_dicom_series(make_ct(size=(20, 24, 12)), tmp_path)
    for file, number in zip(sorted(tmp_path.iterdir()), numbers, strict=True):
        change_dicom(file, InstanceNumber=number)
    assert read_volume(tmp_path).image.GetSize() == (20, 24, 12)


def test_what_is_no_difference_between_slices_is_read(tmp_path):
    write_dicom_series(CT, tmp_path)
    files = sorted(tmp_path.iterdir())
    change_dicom(*files, **ONE, Modality="CT", RescaleType="HU")
    change_dicom(files[1], PatientName="Doe^John^^", ImageType=["ORIGINAL", "PRIMARY"])
    change_dicom(files[2], Modality=None, RescaleType=None, ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "OTHER"])
    for k, file in enumerate(files):
        times = {"AcquisitionTime": f"12000{k}", "ContentTime": f"12010{k}"}
        change_dicom(file, **times, ExposureTime=500 + k, XRayTubeCurrent=100 + k)
    assert same_place(read_volume(tmp_path).image)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("CTReconstructionSequence", "ReconstructionDiameter", 250),
        ("CTXRayDetailsSequence", "FilterType", "FLAT"),
        ("CTXRayDetailsSequence", "KVP", 80),
        ("CTImageFrameTypeSequence", "FrameType", ["DERIVED", "PRIMARY", "VOLUME", "NONE"]),
    ],
)
def test_frames_of_more_than_one_acquisition_are_refused(tmp_path, group, name, value):
    write_frames(CT, tmp_path / "ct.dcm", range(6))
    data = pydicom.dcmread(tmp_path / "ct.dcm")
    for item in data.PerFrameFunctionalGroupsSequence[1::2]:
        macro = Dataset()
        setattr(macro, name, value)
        setattr(item, group, [macro])
    data.save_as(tmp_path / "ct.dcm")
    with pytest.raises(ImageError, match=rf"{name} is '.*', and none in ct\.dcm, frame 1: \S*, frame 2: keep"):
        read_volume(tmp_path)


def test_reconstructions_that_alternate_are_refused(tmp_path):
    between = sitk.Image(CT)
    between.SetOrigin(CT.TransformContinuousIndexToPhysicalPoint((0, 0, 0.5)))
    uid = write_dicom_series(CT, tmp_path / "one")
    write_dicom_series(between, tmp_path / "two")
    for file in (tmp_path / "two").iterdir():
        change_dicom(file, SeriesInstanceUID=uid, ConvolutionKernel="B80f")
    for file in (tmp_path / "one").iterdir():
        change_dicom(file, ConvolutionKernel="B30f")
    with pytest.raises(ImageError, match=r"ConvolutionKernel is 'B80f', and 'B30f' in 000\.dcm"):
        read_volume(tmp_path)


@pytest.mark.parametrize("missing", [[1], [3], [9], [4, 5], [2, 9]])
def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, missing):
    write_dicom_series(make_ct(size=(20, 24, 12)), tmp_path)
    for k in missing:
        (tmp_path / f"{k:03}.dcm").unlink()
    before = missing[0] - 1
    after = next(k for k in range(before + 1, 12) if k not in missing)
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    gap = 1.5 * (after - before)
    assert str(refused.value) == (
        f"the slice lies {gap - 1.5:.2f} mm from its place in an even stack: {gap:.2f} mm after {before:03}.dcm, where "
        f"others are 1.50 mm apart: {tmp_path / f'{after:03}.dcm'}: slices between the two are missing; "
        "export the series again"
    )


@pytest.mark.parametrize("doubled", [0, 4, 11])
def test_a_doubled_slice_is_named_with_its_twin(tmp_path, doubled):
    write_dicom_series(make_ct(size=(20, 24, 12)), tmp_path)
    shutil.copy(tmp_path / f"{doubled:03}.dcm", tmp_path / "copy.dcm")
    with pytest.raises(ImageError) as refused:
        read_volume(tmp_path)
    assert f"0.00 mm after {doubled:03}.dcm" in str(refused.value)
    assert f"{tmp_path / 'copy.dcm'}: the slice is doubled; remove one of the two" in str(refused.value)


def test_uneven_slices_and_a_tilt_are_told_apart(tmp_path):
    write_dicom_series(make_ct(size=(20, 24, 12)), tmp_path)
    position = pydicom.dcmread(tmp_path / "006.dcm").ImagePositionPatient
    change_dicom(tmp_path / "006.dcm", ImagePositionPatient=[*position[:2], position[2] + 0.5])
    with pytest.raises(ImageError, match=r"2\.00 mm after 005\.dcm.*006\.dcm: the slices are unevenly spaced"):
        read_volume(tmp_path)
    change_dicom(tmp_path / "006.dcm", ImagePositionPatient=[position[0] + 2, *position[1:]])
    with pytest.raises(ImageError, match=r"lies 2\.00 mm from its place in an even stack: \S*006\.dcm: the gantry"):
        read_volume(tmp_path)


def test_a_slice_of_another_orientation_is_named_wherever_it_sorts(tmp_path):
    write_dicom_series(CT, tmp_path)
    shutil.copy(tmp_path / "003.dcm", tmp_path / "0 scout.dcm")
    change_dicom(tmp_path / "0 scout.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(
        ImageError, match=r"'1.0 0.0 0.0 0.0 0.0 -1.0', unlike the others' .*0 scout\.dcm: remove it if it is a loc"
    ):
        read_volume(tmp_path)
    shutil.copy(tmp_path / "003.dcm", tmp_path / "0 scout.dcm")
    change_dicom(tmp_path / "0 scout.dcm", Rows=12)
    with pytest.raises(ImageError, match=r"size 20×12×1, unlike the others: \S*0 scout\.dcm: remove it"):
        read_volume(tmp_path)


def test_frames_of_different_rescaling_are_refused(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", range(6), intercepts=[-1024, -1024, 0, 0, 0, 0])
    with pytest.raises(ImageError, match="frames of different orientation, spacing or rescaling"):
        read_volume(tmp_path)


def test_frames_cut_short_are_refused(tmp_path):
    write_frames(CT, tmp_path / "ct.dcm", range(6))
    change_dicom(tmp_path / "ct.dcm", PixelData=bytes(5000))
    with pytest.raises(ImageError, match="no pixel data of 5760 bytes"):
        read_volume(tmp_path)


def test_a_slice_without_pixels_is_refused(tmp_path):
    write_dicom_series(CT, tmp_path)
    change_dicom(tmp_path / "005.dcm", PixelData=None)
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
