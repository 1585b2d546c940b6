"""What `predict --dicom` refuses, before the network runs, and what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk
from dicom import change_dicom, write_frames
from dicom_export.made import Balls, only, run
from pydicom.uid import SecondaryCaptureImageStorage

from nodulemc import cli
from nodulemc.dicom_export import files
from nodulemc.ensemble.manifest import EnsembleManifest, Member, write_manifest
from nodulemc.errors import CaseError
from nodulemc.models.architecture import Architecture

pytestmark = pytest.mark.heavy

REMEDY = "fetch the series from the archive as it is, or leave out --dicom"


def refused(case: Path, capsys, monkeypatch, *options: object) -> str:
    """The error; neither has the network run nor is there an object."""
    monkeypatch.setattr(Balls, "findings", lambda *_: pytest.fail("the network ran"))
    assert run(case, "--dicom", case / "out", *options) == 2
    assert not (case / "out").exists()
    return capsys.readouterr().err.splitlines()[-1]


def all_of(case: Path, **attributes: object) -> None:
    change_dicom(*(case / "ct").iterdir(), **attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"PatientID": ""}, "the DICOM series lacks PatientID: {ct}: " + REMEDY),
        (
            {"StudyInstanceUID": None, "FrameOfReferenceUID": ""},
            "the DICOM series lacks StudyInstanceUID, FrameOfReferenceUID: {ct}: " + REMEDY,
        ),
        ({"StudyInstanceUID": "1.2/3"}, "the StudyInstanceUID is '1.2/3': {ct}/000.dcm: " + REMEDY),
        ({"SOPInstanceUID": "1.2.3"}, "two slices have the same SOPInstanceUID: {ct}: " + REMEDY),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage},
            "the DICOM file is no CT image (Secondary Capture Image Storage): {ct}/000.dcm: " + REMEDY,
        ),
    ],
)
def test_a_series_that_does_not_say_whose_it_is(case, capsys, monkeypatch, attributes, message):
    all_of(case, **attributes)
    assert refused(case, capsys, monkeypatch) == "error: " + message.format(ct=case / "ct")


def test_one_slice_without_its_patient(case, capsys, monkeypatch):
    change_dicom(case / "ct" / "007.dcm", SOPInstanceUID="")
    assert "lacks SOPInstanceUID" in refused(case, capsys, monkeypatch)


def test_real_series_without_tags(case, capsys, monkeypatch, shared_data):
    (case / "ct").rename(case / "made")
    (case / "ct").symlink_to(shared_data / "ct" / "dicom_series")
    assert "lacks PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID: " in refused(
        case, capsys, monkeypatch, "--points", points_at(case, (-5.0, -193.5, -750.0))
    )


def points_at(case: Path, place) -> Path:
    (case / "at.json").write_text(json.dumps({"points": [{"name": "n", "point": place}]}))
    return case / "at.json"


def test_a_multi_frame_ct_in_several_files(case, capsys, monkeypatch):
    image = sitk.ReadImage(sorted(map(str, (case / "ct").iterdir())))
    series = pydicom.dcmread(case / "ct" / "000.dcm")
    for path in (case / "ct").iterdir():
        path.unlink()
    for name, frames in (("a", range(20)), ("b", range(20, 40))):
        write_frames(sitk.Cast(image, sitk.sitkInt16), case / "ct" / name, frames)
    all_of(case, **{n: series[n].value for n in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")})
    assert "error: a multi-frame CT in 2 files: " in refused(case, capsys, monkeypatch)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha"])
def test_a_ct_that_is_no_dicom_is_refused_before_the_weights_are_loaded(case, capsys, monkeypatch, name):
    monkeypatch.setattr("nodulemc.commands.predict.load_ensemble", lambda *_, **__: pytest.fail("they were loaded"))
    (case / name).touch()
    words = ["predict", case / name, "--points", case / "points.json", "--dicom", case / "out"]
    assert cli.main([*map(str, words)]) == 2
    assert capsys.readouterr().err == (
        f"error: --dicom with a CT that is no DICOM series: {case / name}: "
        "give the folder with its DICOM slices, or use --masks and --output\n"
    )
    assert not (case / "out").exists()


def test_no_nodule(case, capsys, monkeypatch):
    (case / "points.json").write_text('{"points": []}')
    assert "error: --dicom without a nodule: " in refused(case, capsys, monkeypatch)


def test_no_input_is_replaced(case, capsys, monkeypatch):
    assert run(case, "--dicom", case / "out") == 0
    seg = only(case / "out", "seg")
    before = seg.read_bytes()
    monkeypatch.setattr(Balls, "findings", lambda *_: pytest.fail("the network ran"))
    assert run(case, "--dicom", case / "out", "--points", seg) == 2
    assert "error: the DICOM object would replace an input: " in capsys.readouterr().err
    assert seg.read_bytes() == before
    assert only(case / "out", "sr").exists()
    first, name = case / "ct" / "000.dcm", seg.name
    first.rename(case / "ct" / name)
    assert run(case, "--dicom", case / "ct") == 2
    assert "error: the DICOM object would replace an input: " in capsys.readouterr().err


def test_objects_beside_the_slices_do_not_change_the_ct(case):
    assert run(case, "--dicom", case / "ct", "--output", case / "a.json") == 0
    assert run(case, "--dicom", case / "ct", "--output", case / "b.json") == 0
    assert (case / "a.json").read_bytes() == (case / "b.json").read_bytes()


def test_those_of_an_earlier_run_are_gone_before_the_network_runs(case, monkeypatch):
    assert run(case, "--dicom", case / "out") == 0

    def fail(*_):
        raise CaseError("the network failed", "here", "no")

    monkeypatch.setattr(Balls, "findings", fail)
    assert run(case, "--dicom", case / "out") == 2
    assert not list((case / "out").iterdir())


def test_both_or_none(case, capsys, monkeypatch):
    assert run(case, "--dicom", case / "out") == 0
    assert len(list((case / "out").iterdir())) == 2

    def refuse(path, content):
        if path.name.endswith("_sr.dcm"):
            raise CaseError("cannot write", path, "no")
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", refuse)
        assert run(case, "--dicom", case / "out") == 2
    assert not list((case / "out").iterdir())

    def refuse_all(*_):
        raise CaseError("cannot write", "output", "no")

    monkeypatch.setattr("nodulemc.output.detailed.write_json_atomically", refuse_all)
    assert run(case, "--dicom", case / "out", "--output", case / "p.json", "--masks", case / "masks") == 2
    assert {*case.iterdir()} == {case / "ct", case / "points.json", case / "out"}
    assert not list((case / "out").iterdir())


def test_values_that_dicom_does_not_know_are_left_empty_and_said(case, caplog):
    all_of(case, PatientSex="X", StudyTime="25", PatientBirthDate="1960.01.02")
    assert run(case, "--dicom", case / "out") == 0
    said = [record.message for record in caplog.records if "is left empty" in record.message]
    assert [line.partition(": ")[2].split()[0] for line in said] == ["PatientBirthDate", "PatientSex", "StudyTime"]
    for kind in ("seg", "sr"):
        data = pydicom.dcmread(only(case / "out", kind))
        assert data.PatientSex == data.StudyTime == data.PatientBirthDate == ""
        assert data.PatientID == "4711"


@pytest.mark.filterwarnings("error")
def test_a_name_as_anonymisers_give_it(case):
    all_of(case, PatientName="LIDC-IDRI-0003")
    assert run(case, "--dicom", case / "out") == 0


def test_names_in_other_scripts_arrive(case):
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    all_of(case, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)
    assert run(case, "--dicom", case / "out") == 0
    for kind in ("seg", "sr"):
        assert str(pydicom.dcmread(only(case / "out", kind)).PatientName) == name


def test_without_decoders_there_is_an_sr_only(case, capsys, caplog):
    (case / "plain").mkdir()
    member = Member("seed_1.safetensors", "0" * 64, Architecture("inception_i3d"))
    write_manifest(case / "plain", EnsembleManifest((member,), "nothing"))
    assert run(case, "--dicom", case / "out", "--output", case / "p.json", "--resources", case / "plain") == 0
    assert [path.name[-7:] for path in (case / "out").iterdir()] == ["_sr.dcm"]
    assert "the ensemble has no decoders: there is no SEG, and the SR has no sizes" in caplog.text
    data = pydicom.dcmread(only(case / "out", "sr")).to_json()
    for point in json.loads((case / "p.json").read_text())["points"]:
        assert "measurements" not in point
        assert str(100 * point["probability"]) in data


def test_json_has_the_measurements_that_the_sr_has(case):
    assert run(case, "--dicom", case / "out", "--output", case / "p.json") == 0
    assert all("measurements" in point for point in json.loads((case / "p.json").read_text())["points"])


def test_without_the_option_nothing_of_it_is_imported():
    code = (
        "import sys, nodulemc.commands.predict, nodulemc.prediction, nodulemc.output.detailed, nodulemc.ct.volume;"
        "print([m for m in sys.modules if 'dicom' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
