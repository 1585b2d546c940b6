"""SEGs against the masks that `--masks` writes, read by pydicom, highdicom and dcmqi."""

import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import rotation
from dicom import write_frames
from dicom_export.judges import faults, program
from dicom_export.made import NAMES, PATIENT, only, run, write_points, write_series

from nodulemc.ct.volume import read_volume
from nodulemc.points.reading import read_points

pytestmark = pytest.mark.heavy

SEGMENTED = NAMES[:3]


@pytest.fixture(params=[None, rotation(4, -3, 30)], ids=["straight", "oblique"])
def scored(case, request):
    """The case, with its SEG and its masks, one file a nodule."""
    if request.param is not None:
        write_points(case / "points.json", write_series(case / "ct", request.param))
    assert run(case, "--dicom", case / "out", "--masks", case / "masks", "--output", case / "p.json") == 0
    return case


def on_grid(part: sitk.Image, ct: sitk.Image) -> np.ndarray:
    """A mask file's voxels in an array of the whole CT, axes z, y, x."""
    whole = sitk.Resample(part, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    return sitk.GetArrayFromImage(whole)


def by_position(seg: pydicom.Dataset, ct: sitk.Image) -> np.ndarray:
    """Each segment's voxels in an array of the whole CT (segment, z, y, x), by the frames' own positions."""
    voxels = np.zeros((len(seg.SegmentSequence), *ct.GetSize()[::-1]), np.uint8)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        index = ct.TransformPhysicalPointToContinuousIndex([float(c) for c in position])
        np.testing.assert_allclose(
            [index[0], index[1], index[2] % 1 + 1], np.round([0, 0, index[2] % 1 + 1]), atol=1e-4
        )
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        voxels[segment - 1, round(index[2])] += frame
    return voxels


def read_ct(folder) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_voxels_are_the_masks_on_the_ct(scored):
    ct = read_ct(scored / "ct")
    seg = pydicom.dcmread(only(scored / "out", "seg"))
    expected = [on_grid(sitk.ReadImage(str(scored / "masks" / f"{name}.mha")), ct) for name in SEGMENTED]
    assert all(mask.any() for mask in expected)
    assert (expected[1] & expected[2]).any()
    assert seg.SegmentsOverlap == "YES"
    np.testing.assert_array_equal(by_position(seg, ct), expected)


def test_highdicom_reads_them_back(scored):
    seg = highdicom.seg.segread(only(scored / "out", "seg"))
    ct = read_ct(scored / "ct")
    expected = by_position(seg, ct)
    assert [seg.get_segment_description(k).segment_label for k in seg.segment_numbers] == [*SEGMENTED]
    for k in seg.segment_numbers:
        volume = seg.get_volume(segment_numbers=[k], combine_segments=True)
        part = sitk.GetImageFromArray(volume.array)
        part.SetSpacing(volume.spacing[::-1])
        part.SetDirection(volume.direction[:, ::-1].ravel().tolist())
        part.SetOrigin(volume.position)
        np.testing.assert_array_equal(on_grid(part, ct) > 0, expected[k - 1] > 0)


def test_dcmqi_reads_them_back(scored):
    command = [program("segimage2itkimage", "dcmqi"), "--inputDICOM", only(scored / "out", "seg")]
    subprocess.run([*command, "--outputType", "nrrd", "--outputDirectory", scored], check=True, capture_output=True)
    ct = read_ct(scored / "ct")
    expected = by_position(pydicom.dcmread(only(scored / "out", "seg")), ct)
    for k, mask in enumerate(expected, start=1):
        np.testing.assert_array_equal(on_grid(sitk.ReadImage(str(scored / f"{k}.nrrd")), ct) > 0, mask > 0)


def test_our_own_points_find_the_nodules(scored, caplog):
    volume = read_volume(scored / "ct")
    nodules = read_points(only(scored / "out", "seg"), volume)
    assert [nodule.name for nodule in nodules] == [*SEGMENTED]
    given = read_points(scored / "points.json", volume)
    for found, nodule in zip(nodules, given, strict=False):
        assert np.linalg.norm(np.subtract(found.point, nodule.point)) < 0.5
    assert not caplog.records


def test_the_header_says_whose_it_is_and_what_made_it(scored):
    file = only(scored / "out", "seg")
    assert faults(file) == []
    seg, first = pydicom.dcmread(file), pydicom.dcmread(scored / "ct" / "000.dcm")
    for name in {*PATIENT, "StudyInstanceUID"} - {"SpecificCharacterSet", "Manufacturer"}:
        assert seg[name].value == first[name].value
    assert (seg.Modality, seg.SegmentationType, seg.NumberOfFrames) == ("SEG", "BINARY", len(seg.pixel_array))
    assert seg.SeriesInstanceUID != first.SeriesInstanceUID
    assert seg.DeviceSerialNumber == "0" * 64
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert 0 < len(referenced) < 40
    assert referenced < {pydicom.dcmread(path).SOPInstanceUID for path in (scored / "ct").iterdir()}
    for number, (segment, name) in enumerate(zip(seg.SegmentSequence, SEGMENTED, strict=True), start=1):
        assert (segment.SegmentNumber, segment.SegmentLabel, segment.TrackingID) == (number, name, name)
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "27925004"  # nodule
        assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"  # lung
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("NoduleMC", "0.1.0")
        assert f"ensemble SHA-256={'0' * 64}" in algorithm.AlgorithmParameters


def test_frames_of_one_file_are_read_and_referred_to(case):
    image = sitk.Cast(read_ct(case / "ct"), sitk.sitkInt16)
    series = pydicom.dcmread(case / "ct" / "000.dcm")
    for path in (case / "ct").iterdir():
        path.unlink()
    order = np.random.default_rng(5).permutation(image.GetSize()[2]).tolist()
    write_frames(image, case / "ct" / "all.dcm", order)
    data = pydicom.dcmread(case / "ct" / "all.dcm")
    for name in PATIENT:
        setattr(data, name, series[name].value)
    data.save_as(case / "ct" / "all.dcm")
    assert run(case, "--dicom", case / "out", "--masks", case / "masks", "--output", case / "p.json") == 0
    seg = pydicom.dcmread(only(case / "out", "seg"))
    assert faults(only(case / "out", "seg")) == faults(only(case / "out", "sr")) == []
    expected = [on_grid(sitk.ReadImage(str(case / "masks" / f"{name}.mha")), image) for name in SEGMENTED]
    np.testing.assert_array_equal(by_position(seg, image), expected)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        theirs = data.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1]
        assert source.ReferencedSOPInstanceUID == data.SOPInstanceUID
        assert theirs.PlanePositionSequence == groups.PlanePositionSequence
    check_sources(seg, case)


def check_sources(seg: pydicom.Dataset, case) -> None:
    """The SR's groups name the slices or frames that the SEG's frames of their segments name."""
    theirs = {number: set() for number in range(1, len(seg.SegmentSequence) + 1)}
    for groups in seg.PerFrameFunctionalGroupsSequence:
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        theirs[number].add((source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")))
    report = highdicom.sr.srread(only(case / "out", "sr")).content
    for group in report.get_volumetric_roi_measurement_groups():
        items = group.referenced_segment[1:]
        named = {(item.referenced_sop_instance_uid, *(item.referenced_frame_numbers or [None])) for item in items}
        assert named == theirs[group.referenced_segment[0].referenced_segment_numbers[0]]


def test_the_sr_names_the_same_slices(scored):
    check_sources(pydicom.dcmread(only(scored / "out", "seg")), scored)


def test_many_nodules_do_not_overlap(case):
    """More than 255 labels."""
    from nodulemc.dicom_export.segmentation import _pixels
    from nodulemc.measure.mask import NoduleMask

    masks = [NoduleMask((k % 20, k // 20, 0), np.ones((1, 1, 1), np.float32), 0.0, ()) for k in range(300)]
    labels = _pixels(masks, {0: 0}, (1, 20, 20))
    assert np.array_equal(labels.ravel()[:300], np.arange(1, 301))
