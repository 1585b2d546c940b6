"""SRs against the JSON output, read by highdicom, pydicom and dcmqi."""

import json
import subprocess

import pydicom
import pytest
from dicom_export.judges import faults, program
from dicom_export.made import NAMES, PATIENT, only, run
from highdicom import sr
from pydicom.sr.codedict import codes

pytestmark = pytest.mark.heavy

SIZES = {codes.SCT.Volume: "volume_mm3", codes.SCT.LongAxis: "long_axis_mm", codes.SCT.ShortAxis: "short_axis_mm"}
UNITS = {"volume_mm3": "mm3", "long_axis_mm": "mm", "short_axis_mm": "mm"}


@pytest.fixture
def scored(case):
    assert run(case, "--dicom", case / "out", "--output", case / "p.json") == 0
    return case


def read_points(case) -> list[dict]:
    return json.loads((case / "p.json").read_text())["points"]


def test_numbers_are_those_of_the_json(scored):
    report = sr.srread(only(scored / "out", "sr")).content
    seg = pydicom.dcmread(only(scored / "out", "seg"))
    points = read_points(scored)
    groups = report.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [*NAMES[:3]]
    for k, (group, point) in enumerate(zip(groups, points, strict=False), start=1):
        found = {item.name: item for item in group.get_measurements()}
        probability = found.pop(codes.DCM.ProbabilityOfCancer)
        assert (probability.value, probability.unit) == (100 * point["probability"], codes.UCUM.Percent)
        assert {SIZES[name] for name in found} == {*UNITS}
        for name, item in found.items():
            assert item.value == point["measurements"][SIZES[name]] > 0
            assert item.unit.value == UNITS[SIZES[name]]
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert segment.referenced_segment_numbers == [k]
        assert group.tracking_uid == seg.SegmentSequence[k - 1].TrackingUID
        assert (group.finding_type, group.finding_sites[0].value) == (codes.SCT.Nodule, codes.SCT.Lung)


def test_a_nodule_without_a_mask_keeps_its_probability_and_its_point(scored):
    report = sr.srread(only(scored / "out", "sr")).content
    *_, point = read_points(scored)
    assert "its mask is empty" in point["warnings"]
    (group,) = report.get_image_measurement_groups()
    assert group.tracking_identifier == "4"
    (probability,) = group.get_measurements()
    assert (probability.name, probability.value) == (codes.DCM.ProbabilityOfCancer, 100 * point["probability"])
    (place,) = probability.referenced_coordinates
    assert place.value[0].tolist() == pytest.approx(point["point"], abs=1e-4)
    assert place.frame_of_reference_uid == PATIENT["FrameOfReferenceUID"]
    (image,) = group.source_images
    data = {path.name: pydicom.dcmread(path) for path in (scored / "ct").iterdir()}
    assert image.referenced_sop_instance_uid == data["010.dcm"].SOPInstanceUID  # the point lies on slice 10
    comments = [item.value for item in group[0].ContentSequence if item.name == codes.DCM.Comment]
    assert comments == point["warnings"]


def test_the_header_says_whose_it_is_and_what_made_it(scored):
    file = only(scored / "out", "sr")
    assert faults(file) == []
    report, first = pydicom.dcmread(file), pydicom.dcmread(scored / "ct" / "000.dcm")
    for name in {*PATIENT, "StudyInstanceUID"} - {"SpecificCharacterSet", "Manufacturer", "FrameOfReferenceUID"}:
        assert report[name].value == first[name].value
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    evidence = {one.SeriesInstanceUID: len(one.ReferencedSOPSequence) for one in study.ReferencedSeriesSequence}
    assert (study.StudyInstanceUID, evidence[first.SeriesInstanceUID]) == (first.StudyInstanceUID, 40)
    assert evidence[pydicom.dcmread(only(scored / "out", "seg")).SeriesInstanceUID] == 1
    text = report.to_json()
    for words in ("ensemble SHA-256: " + "0" * 64, "weights trained on: nothing", "calibration: none"):
        assert words in text


def test_dcmqi_reads_it(scored):
    command = [program("tid1500reader", "dcmqi"), "--inputDICOM", only(scored / "out", "sr")]
    subprocess.run([*command, "--outputMetadata", scored / "sr.json"], check=True, capture_output=True)
    groups = json.loads((scored / "sr.json").read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == [*NAMES[:3], "4"]
    assert [group.get("ReferencedSegment") for group in groups] == [1, 2, 3, None]
    for group, point in zip(groups, read_points(scored), strict=True):
        found = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert found["Probability of cancer"] == pytest.approx(100 * point["probability"])
        assert found.get("Volume") == pytest.approx(point["measurements"]["volume_mm3"])
        assert group["measurementAlgorithmIdentification"]["AlgorithmParameters"][0].endswith("0" * 64)


def test_each_run_makes_new_objects_with_the_same_nodules(scored):
    first = {kind: pydicom.dcmread(only(scored / "out", kind)) for kind in ("seg", "sr")}
    assert run(scored, "--dicom", scored / "out", "--output", scored / "p.json") == 0
    for kind, old in first.items():
        new = pydicom.dcmread(only(scored / "out", kind))
        assert new.SOPInstanceUID != old.SOPInstanceUID
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.StudyInstanceUID == old.StudyInstanceUID
    tracked = [
        [segment.TrackingUID for segment in data.SegmentSequence]
        for data in (first["seg"], pydicom.dcmread(only(scored / "out", "seg")))
    ]
    assert tracked[0] == tracked[1]
    assert len({*tracked[0]}) == 3
