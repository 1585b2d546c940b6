"""DICOM SEGs that highdicom writes, against SciPy's centres of mass."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import make_ct, rotation
from dicom import change_dicom, write_dicom_series
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage
from segmentations import change_syntax, write_seg

from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import PointsError
from nodulemc.points.reading import read_points

SIZE = (37, 31, 12)  # a frame of single bits ends within a byte


def centres(image: sitk.Image, masks: list[np.ndarray]) -> list[tuple[float, ...]]:
    """SciPy's centres of mass of arrays z, y, x, in mm."""
    return [image.TransformContinuousIndexToPhysicalPoint(ndimage.center_of_mass(mask)[::-1]) for mask in masks]


def two_nodules() -> np.ndarray:
    """Axes z, y, x, segment; the second segment has two parts, and both overlap."""
    masks = np.zeros((*SIZE[::-1], 2), np.uint8)
    masks[2:5, 3:9, 4:17, 0] = 1
    masks[3, 20, 30, 0] = 1
    masks[4:8, 7:20, 10:13, 1] = 1
    masks[10, 3, 3, 1] = 1
    return masks


@pytest.fixture
def folder(tmp_path):
    """A folder with an oblique series."""
    write_dicom_series(make_ct(size=SIZE, direction=rotation(4, -3, 30)), tmp_path / "ct")
    change_dicom(*(tmp_path / "ct").iterdir(), FrameOfReferenceUID="1.2.3")
    return tmp_path / "ct"


def check(path: Path, volume: Volume, masks: np.ndarray, names=("left", "right")) -> None:
    nodules = read_points(path, volume)
    assert [nodule.name for nodule in nodules] == list(names)
    expected = centres(volume.image, [masks[..., k] for k in range(masks.shape[-1])])
    np.testing.assert_allclose([nodule.point for nodule in nodules], expected, atol=1e-3)


@pytest.mark.parametrize("omit_empty_frames", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_binary_segments_are_nodules(folder, syntax, omit_empty_frames):
    masks = two_nodules()
    path = write_seg(folder, masks, omit_empty_frames=omit_empty_frames)
    change_syntax(path, syntax)
    check(path, read_volume(folder), masks)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_fractions_are_weights_and_probabilities_are_cut_at_half(folder, syntax):
    fractions = np.random.default_rng(0).random((*SIZE[::-1], 2)).astype(np.float32) * two_nodules()
    volume = read_volume(folder)
    path = write_seg(folder, fractions, "FRACTIONAL", fractional_type="OCCUPANCY", transfer_syntax_uid=syntax)
    check(path, volume, np.round(fractions * 255))
    path = write_seg(folder, fractions, "FRACTIONAL", fractional_type="PROBABILITY", transfer_syntax_uid=syntax)
    check(path, volume, np.round(fractions * 255) >= 127.5)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_label_maps_are_read(folder, syntax):
    masks = two_nodules()
    masks[..., 0] &= ~masks[..., 1] & 1
    path = write_seg(folder, masks, "LABELMAP", transfer_syntax_uid=syntax)
    check(path, read_volume(folder), masks)


def test_frames_lie_where_they_say_in_any_order(folder):
    masks = two_nodules()
    path = write_seg(folder, masks)
    data = pydicom.dcmread(path)
    frames = pydicom.pixels.unpack_bits(data.PixelData)[: data.NumberOfFrames * SIZE[0] * SIZE[1]]
    frames = frames.reshape(-1, SIZE[0] * SIZE[1])
    order = np.random.default_rng(0).permutation(len(frames))
    data.PixelData = pydicom.pixels.pack_bits(frames[order].ravel())
    data.PerFrameFunctionalGroupsSequence = [data.PerFrameFunctionalGroupsSequence[k] for k in order]
    data.save_as(path)
    check(path, read_volume(folder), masks)


def test_a_grid_of_its_own_is_read(folder):
    """On half the pixel size, a quarter of a pixel beside, and every other slice only."""
    volume = read_volume(folder)
    fine = sitk.Image([60, 50, 6], sitk.sitkUInt8)
    fine.SetDirection(volume.image.GetDirection())
    fine.SetSpacing([0.35, 0.4, 3.0])
    fine.SetOrigin(volume.image.TransformContinuousIndexToPhysicalPoint([2.25, 3.75, 1]))
    masks = np.zeros((6, 50, 60, 1), np.uint8)
    masks[1:4, 5:30, 7:19] = 1
    cosines = np.array(fine.GetDirection()).reshape(3, 3).T[:2].ravel()
    positions = [fine.TransformIndexToPhysicalPoint([0, 0, k]) for k in range(6)]
    path = write_seg(
        folder,
        masks,
        labels=["fine"],
        pixel_measures=highdicom.PixelMeasuresSequence([0.4, 0.35], 3.0, 3.0),
        plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", cosines),
        plane_positions=[highdicom.PlanePositionSequence("PATIENT", position) for position in positions],
    )
    (nodule,) = read_points(path, volume)
    np.testing.assert_allclose(nodule.point, centres(fine, [masks[..., 0]])[0], atol=1e-3)


@pytest.mark.heavy
def test_a_real_series_and_its_segmentation_in_one_folder(shared_data, tmp_path):
    (tmp_path / "ct").mkdir()
    for file in (shared_data / "ct" / "dicom_series").iterdir():
        (tmp_path / "ct" / file.name).write_bytes(file.read_bytes())
    volume = read_volume(tmp_path / "ct")
    masks = np.zeros((*volume.image.GetSize()[::-1], 1), np.uint8)
    masks[5:9, 100:120, 130:141] = 1
    path = write_seg(tmp_path / "ct", masks, labels=["Nodule"])
    check(path, volume, masks, ["Nodule"])
    path.rename(tmp_path / "ct" / "seg.dcm")
    check(tmp_path / "ct", read_volume(tmp_path / "ct"), masks, ["Nodule"])


def test_names_fall_back_to_numbers_and_stay_apart(folder):
    path = write_seg(folder, two_nodules(), labels=["Nodule", "Nodule"])
    volume = read_volume(folder)
    assert [nodule.name for nodule in read_points(path, volume)] == ["Nodule-1", "Nodule-2"]
    data = pydicom.dcmread(path)
    data.SegmentSequence[0].SegmentLabel = ""
    data.save_as(path)
    assert [nodule.name for nodule in read_points(path, volume)] == ["1", "Nodule"]


def test_another_frame_of_reference_is_refused(folder):
    path = write_seg(folder, two_nodules())
    change_dicom(path, FrameOfReferenceUID="9.8.7")
    with pytest.raises(PointsError, match=r"frame of reference is '9\.8\.7', and the CT's is '1\.2\.3'"):
        read_points(path, read_volume(folder))


def test_an_unknown_frame_of_reference_is_said(folder, caplog):
    path = write_seg(folder, two_nodules())
    volume = read_volume(folder)
    ct = Volume(volume.image, Path("ct.nii.gz"))
    assert read_points(path, ct) == read_points(path, volume)
    (said,) = caplog.messages
    assert "cannot be checked: ct.nii.gz states no frame of reference" in said
    change_dicom(path, FrameOfReferenceUID=None)
    read_points(path, volume)
    assert "cannot be checked: seg.dcm states no frame of reference" in caplog.messages[1]


def test_empty_segments_are_left_out(folder, caplog):
    masks = two_nodules()
    masks[..., 0] = 0
    path = write_seg(folder, masks)
    check(path, read_volume(folder), masks[..., 1:], ["right"])
    assert "segment 'left' is empty" in caplog.text


def without_place(data):
    del data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence


def without_spacing(data):
    del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def changed(**values):
    def change(data):
        for name, value in values.items():
            setattr(data, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_place, r"positions for \d+ frames"),
        (without_spacing, "no place in space"),
        (changed(PixelData=b"\1" * 30), "damaged"),
        (changed(SegmentationType="SURFACE"), "SEG of type 'SURFACE'"),
        (changed(SegmentSequence=[]), "damaged"),
        (changed(NumberOfFrames=30_000), "damaged"),
        (changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.66"), "no SEG or RTSTRUCT"),
        (changed(PixelData=bytes(4000)), "nothing is segmented"),
    ],
)
def test_unusable_segs_are_refused(folder, change, message):
    path = write_seg(folder, two_nodules())
    data = pydicom.dcmread(path)
    change(data)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.save_as(path)
    with pytest.raises(PointsError, match=message):
        read_points(path, read_volume(folder))


def test_lungs_are_no_nodules(folder):
    path = write_seg(folder, two_nodules())
    data = pydicom.dcmread(path)
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [70, 80]
    data.save_as(path)
    with pytest.raises(PointsError, match=r"the segments fill .* litres"):
        read_points(path, read_volume(folder))


def test_a_folder_has_to_hold_one(folder):
    volume = read_volume(folder)
    with pytest.raises(PointsError, match="no DICOM SEG or RTSTRUCT"):
        read_points(folder, volume)
    first = write_seg(folder, two_nodules())
    (folder / "a.dcm").write_bytes(first.read_bytes())
    (folder / "b.dcm").write_bytes(first.read_bytes())
    with pytest.raises(PointsError, match="2 DICOM SEGs or RTSTRUCTs"):
        read_points(folder, volume)
