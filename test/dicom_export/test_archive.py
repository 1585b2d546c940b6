"""The round trip of docs/dicom.md through a real archive."""

import json
import shutil

import pydicom
import pytest
from dicom_export.archive import open_archive
from dicom_export.judges import faults
from dicom_export.made import only, run
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from nodulemc.ct.volume import read_volume
from nodulemc.points.reading import read_points

pytestmark = [pytest.mark.archive, pytest.mark.heavy]
MODALITY, SERIES, INSTANCE = "00080060", "0020000E", "00080018"


@pytest.fixture(params=["made", "real"])
def scan(case, request):
    """A folder with a CT and its points."""
    if request.param == "real":
        real = request.getfixturevalue("shared_data") / "lidc" / "scans" / "LIDC-IDRI-0003"
        shutil.rmtree(case / "ct")
        shutil.copytree(real, case / "ct", ignore=shutil.ignore_patterns("*.xml"))
        # Inside readers' outlines.
        places = {"1": (72.5, 77.2, -190.4), "2": (23.5, -47.6, -172.2)}
        points = [{"name": name, "point": place} for name, place in places.items()]
        (case / "points.json").write_text(json.dumps({"points": points}))
    return case


def test_ct_from_the_archive_and_objects_back_into_it(scan):
    source = pydicom.dcmread(next((scan / "ct").iterdir()), stop_before_pixels=True)
    study, series = source.StudyInstanceUID, source.SeriesInstanceUID
    slices = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (scan / "ct").iterdir()}
    (scan / "archive").mkdir()
    with open_archive(scan / "archive") as archive:
        archive.store(*(scan / "ct").iterdir())
        shutil.rmtree(scan / "ct")
        archive.fetch(scan / "ct", study, series)
        assert {pydicom.dcmread(path).SOPInstanceUID for path in (scan / "ct").iterdir()} == slices
        assert run(scan, "--dicom", scan / "out", "--output", scan / "p.json") == 0
        archive.store(*(scan / "out").iterdir())
        (found_study,) = archive.search("studies", PatientID=source.PatientID)
        assert found_study["0020000D"]["Value"] == [study]
        assert {*found_study["00080061"]["Value"]} == {"CT", "SEG", "SR"}
        found = {one[MODALITY]["Value"][0]: one for one in archive.search(f"studies/{study}/series")}
        assert {*found} == {"CT", "SEG", "SR"}
        for kind in ("SEG", "SR"):
            uid = found[kind][SERIES]["Value"][0]
            (instance,) = archive.search(f"studies/{study}/series/{uid}/instances")
            fetched = scan / f"{kind}.dcm"
            fetched.write_bytes(archive.retrieve(study, uid, instance[INSTANCE]["Value"][0]))
            sent = pydicom.dcmread(only(scan / "out", kind.lower()))
            assert pydicom.dcmread(fetched) == sent
            assert faults(fetched) == []
            assert referred_to(sent) <= slices
    points = json.loads((scan / "p.json").read_text())["points"]
    report = sr.srread(scan / "SR.dcm").content
    groups = [*report.get_volumetric_roi_measurement_groups(), *report.get_image_measurement_groups()]
    probabilities = [group.get_measurements(name=codes.DCM.ProbabilityOfCancer)[0].value for group in groups]
    assert probabilities == [100 * point["probability"] for point in points]
    again = read_points(scan / "SEG.dcm", read_volume(scan / "ct"))
    assert [nodule.name for nodule in again] == [
        point["name"] for point in points if point["measurements"]["volume_mm3"]
    ]


def referred_to(data: pydicom.Dataset) -> set[str]:
    """The CT instances that an object refers to, anywhere in it; at least one."""
    items = [item for element in data.iterall() if element.VR == "SQ" for item in element.value]
    found = {item.ReferencedSOPInstanceUID for item in items if item.get("ReferencedSOPClassUID") == CTImageStorage}
    assert found
    return found
