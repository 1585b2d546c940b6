"""The list of training cases: its file, and what `predict`, the container, `cohort` and `evaluate` make of it."""

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pydicom
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch, make_case
from cohort.made import make_cohort, read_rows, write_rows
from conftest import centre_of, make_ct
from dicom import change_dicom, write_dicom_series
from ensembles import make_untrained_ensemble
from sklearn.metrics import roc_auc_score

from nodulemc import cli
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ct.volume import read_volume
from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest, write_manifest
from nodulemc.ensemble.trained_cases import (
    FILE_NAME,
    SAME_PATIENT,
    SCAN,
    WARNINGS,
    TrainedCase,
    read_trained_cases,
    write_trained_cases,
)
from nodulemc.errors import EnsembleError
from nodulemc.grand_challenge.case import run_case
from nodulemc.models.architecture import Architecture

pytestmark = pytest.mark.heavy

CASES = [TrainedCase("1.2.0", "p0"), TrainedCase("1.2.10", 'Doe, "J"'), TrainedCase("1.2.11", "p1")]


def folder_of(folder, content=None, **members):
    """An ensemble's folder, without weights, and a list of these members' cases, or one with this content."""
    listed = tuple(Member(f"{name}.safetensors", "0" * 64, Architecture("inception_i3d")) for name in members)
    folder.mkdir(exist_ok=True)
    sha256 = write_trained_cases(folder, members)
    if content is not None:
        (folder / FILE_NAME).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
    write_manifest(folder, EnsembleManifest(listed, trained_on="x", trained_cases=sha256))
    return read_manifest(folder)


def test_each_members_cases_are_listed_once(tmp_path):
    manifest = folder_of(tmp_path, a=CASES, b=CASES[:2])
    with (tmp_path / FILE_NAME).open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["SeriesInstanceUID", "PatientID", "member"],
            ["1.2.10", 'Doe, "J"', "all"],
            ["1.2.0", "p0", "all"],
            ["1.2.11", "p1", "a"],
        ]
    found = read_trained_cases(manifest)
    assert (found.of_member("a"), found.of_member("b")) == (frozenset(CASES), frozenset(CASES[:2]))


def test_a_list_without_quotes_is_read_alike(tmp_path):
    plain = [CASES[0], CASES[2]]
    assert read_trained_cases(folder_of(tmp_path, a=plain)).of_member("a") == frozenset(plain)
    windows = (tmp_path / FILE_NAME).read_bytes().replace(b"\n", b"\r\n")
    assert read_trained_cases(folder_of(tmp_path, windows, a=plain)).of_member("a") == frozenset(plain)


@pytest.mark.parametrize(
    ("uids", "patient", "seen"),
    [
        (["1.2.0"], None, "scan"),
        (["ct", "1.2.10"], "stranger", "scan"),
        (["1.2.7"], "p1", "patient"),
        ([], 'Doe, "J"', "patient"),
        (["1.2"], "p", "no"),
        (["1.2.1"], None, "no"),
        (["ct"], "p", "no"),
        (["ct"], None, None),  # a file's name that is no UID tells nothing
        ([], None, None),
    ],
)
def test_what_has_been_seen(tmp_path, uids, patient, seen):
    cases = read_trained_cases(folder_of(tmp_path, a=CASES))
    assert cases.seen(ScanIds(frozenset(uids), patient)) == seen


def test_nothing_known_is_no_file_and_an_older_one_goes(tmp_path):
    folder_of(tmp_path, a=CASES)
    manifest = folder_of(tmp_path, a=None)
    assert not (tmp_path / FILE_NAME).exists()
    assert (manifest.trained_cases, read_trained_cases(manifest)) == (None, None)


def test_a_case_of_all_but_an_unknown_member_is_not_of_all(tmp_path):
    folder_of(tmp_path, a=CASES[:1], b=None)
    assert [row["member"] for row in read_rows(tmp_path / FILE_NAME)] == ["a"]


def test_the_list_may_be_left_out(tmp_path):
    """As for a hospital's patients."""
    manifest = folder_of(tmp_path, a=CASES)
    (tmp_path / FILE_NAME).unlink()
    assert read_trained_cases(manifest) is None


@pytest.mark.parametrize("content", [b"SeriesInstanceUID,PatientID,member\n1.2.0,p0,all\n", b""])
def test_another_list_is_refused(tmp_path, content):
    manifest = folder_of(tmp_path, a=CASES)
    (tmp_path / FILE_NAME).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()[:12]
    with pytest.raises(EnsembleError, match=rf"SHA-256 is {digest}…, ensemble\.json says .*cases\.csv: .*copy it"):
        read_trained_cases(manifest)


def test_a_list_that_the_manifest_does_not_name_is_refused(tmp_path):
    manifest = folder_of(tmp_path, a=CASES)
    stated = manifest.trained_cases
    with pytest.raises(EnsembleError, match=rf"names no trained_cases\.csv: .*: remove it, or state .{stated}. there"):
        read_trained_cases(replace(manifest, trained_cases=None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no list of training cases"),
        (b"SeriesInstanceUID,member\n1,all\n", "no list of training cases: .*give the columns SeriesInstanceUID, Pat"),
        (b"SeriesInstanceUID,PatientID,member\n1,2\n", "no list of training cases"),
        (b"SeriesInstanceUID,PatientID,member\n1,2,c\n", "no member is called 'c'"),
        (b"SeriesInstanceUID,PatientID,member\n1,\xff,all\n", "cannot read the list"),
        (b'SeriesInstanceUID,PatientID,member\n1,"2,all\n', "cannot read the list"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, content, message):
    with pytest.raises(EnsembleError, match=message):
        read_trained_cases(folder_of(tmp_path, content, a=CASES))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An untrained ensemble that claims to have been trained on CASES."""
    folder = tmp_path_factory.mktemp("trained")
    manifest = make_untrained_ensemble(folder, upscales=False)
    sha256 = write_trained_cases(folder, {"seed_1": CASES})
    write_manifest(folder, replace(manifest, trained_on="made", trained_cases=sha256))
    return folder


def tagged(path, **tags):
    """A CT with these in its header, as ITK writes DICOM's tags."""
    image = make_ct()
    keys = {"uid": "0020|000e", "patient": "0010|0020"}
    for key, value in tags.items():
        image.SetMetaData(keys.get(key, key), value)
    sitk.WriteImage(image, str(path))
    return path


def dicom(folder, **tags):
    write_dicom_series(make_ct(), folder)
    change_dicom(*folder.iterdir(), **tags)
    return folder


SOURCES = {
    "tags.mha": (lambda p: tagged(p, uid="1.2.0"), SCAN),
    "tags.nrrd": (lambda p: tagged(p, uid="1.2.11"), SCAN),
    "names.mha": (lambda p: tagged(p, SeriesInstanceUID="1.2.0", PatientID="p1"), SCAN),
    "patient.mha": (lambda p: tagged(p, uid="1.2.77", patient='Doe, "J"'), SAME_PATIENT),
    "1.2.0.nii.gz": (tagged, SCAN),
    "1.2.00.mha": (tagged, None),
    "other.mha": (lambda p: tagged(p, uid="1.2.1", patient="p"), None),
    "series": (lambda p: dicom(p, SeriesInstanceUID="1.2.11", PatientID="somebody"), SCAN),
    "patient": (lambda p: dicom(p, PatientID="p1"), SAME_PATIENT),
    "stranger": (dicom, None),
}


@pytest.mark.parametrize("name", SOURCES)
def test_predict_warns(name, trained, tmp_path, caplog):
    make, seen = SOURCES[name]
    ct, output = make(tmp_path / name), tmp_path / "out.json"
    (tmp_path / "p.json").write_text(json.dumps({"points": [{"point": list(centre_of(make_ct()))}] * 2}))
    arguments = (ct, "--points", tmp_path / "p.json", "--output", output, "--resources", trained, "--device", "cpu")
    assert cli.main(["predict", *map(str, arguments)]) == 0
    assert [said for said in caplog.messages if "trained on" in said] == ([WARNINGS[seen]] if seen else [])
    for point in json.loads(output.read_text())["points"]:
        assert [warning for warning in point["warnings"] if "trained on" in warning] == (
            [WARNINGS[seen]] if seen else []
        )


def test_predict_refuses_a_damaged_list(trained, tmp_path, capsys):
    folder = tmp_path / "ensemble"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / FILE_NAME).write_text("SeriesInstanceUID,PatientID,member\n")
    ct = tagged(tmp_path / "ct.mha")
    (tmp_path / "p.json").write_text('{"points": []}')
    assert cli.main(["predict", str(ct), "--points", str(tmp_path / "p.json"), "--resources", str(folder)]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "ensemble.json says" in error


def test_grand_challenge_shows_one_line(tmp_path, caplog):
    class Trained(MeanOfPatch):
        trained_cases = read_trained_cases(folder_of(tmp_path / "e", a=CASES))

    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    make_case(tmp_path / "input", [{"name": str(k), "point": list(centre_of(make_ct()))} for k in range(3)])
    run_case(tmp_path / "input", tmp_path / "output", Trained)
    assert "trained on" not in caplog.text
    tagged(tmp_path / "input" / "images" / "chest-ct" / "ct.mha", SeriesInstanceUID="1.2.0")
    run_case(tmp_path / "input", tmp_path / "output", Trained)
    assert caplog.text.count(WARNINGS[SCAN]) == caplog.text.count("trained on") == 1


def test_the_containers_stderr_has_one_line(trained, tmp_path):
    (tmp_path / "input").mkdir()
    make_case(tmp_path / "input", [{"point": list(centre_of(make_ct()))}])
    tagged(tmp_path / "input" / "images" / "chest-ct" / "ct.mha", SeriesInstanceUID="1.2.0")
    folders = ("--input", tmp_path / "input", "--output", tmp_path / "output", "--resources", trained)
    command = [sys.executable, Path(__file__).parents[2] / "inference.py", *folders, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "trained" in line] == [f"warning: {WARNINGS[SCAN]}"]


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """A cohort's folder and its results: scans known by name, table, patient, DICOM header, or not at all."""
    folder = make_cohort(tmp_path_factory.mktemp("scored") / "luna", 4)
    dicom(folder / "series", SeriesInstanceUID="1.2.11", PatientID="")
    x, y, z = centre_of(make_ct())
    rows = [
        ("ct/1.2.0.mha", "", "a", "q", -15, 26, -120, 1),
        ("ct/1.2.1.mha", "1.2.10", "b", "r", -15, 26, -120, 0),
        ("ct/1.2.2.mha", "", "c1", "p1", -15, 26, -120, 1),
        ("ct/1.2.2.mha", "", "c2", "p1", -14, 26, -120, 0),
        ("ct/1.2.3.mha", "", "d1", "s", -15, 26, -120, 0),
        ("ct/1.2.3.mha", "", "d2", "s", -14, 26, -120, 1),
        ("series", "", "e", "t", x, y, z, 0),
    ]
    columns = ("ct", "SeriesInstanceUID", "AnnotationID", "PatientID", "x", "y", "z", "label")
    write_rows(folder / "m.csv", columns, rows)
    command = ["cohort", folder / "m.csv", "--output", folder / "out", "--resources", trained, "--device", "cpu"]
    assert cli.main([*map(str, command), "--precision", "fp32"]) == 0
    return folder


SEEN = {"a": "scan", "b": "scan", "c1": "patient", "c2": "patient", "d1": "no", "d2": "no", "e": "scan"}


def test_a_cohorts_results_say_what_was_trained_on(scored, trained, capsys):
    rows = {row["AnnotationID"]: row for row in read_rows(scored / "out" / "predictions.csv")}
    assert {name: row["seen_in_training"] for name, row in rows.items()} == SEEN
    digest = hashlib.sha256((trained / "ensemble.json").read_bytes()).hexdigest()
    for name, row in rows.items():
        assert (row["ensemble"], row["trained_on"]) == (digest, "made")
        said = [warning for warning in row["warnings"].split("; ") if "trained on" in warning]
        assert said == ([WARNINGS[SEEN[name]]] if SEEN[name] in WARNINGS else [])
    stored = pyarrow.parquet.read_table(scored / "out" / "predictions.parquet").to_pylist()
    assert [row["seen_in_training"] for row in stored] == list(SEEN.values())
    assert cli.main(["cohort-status", str(scored / "out")]) == 0
    line = "trained on: 4 of 5 scans (5 nodules) are of patients that the ensemble was trained on, see their warnings"
    assert line in capsys.readouterr().out.splitlines()


def test_patients_that_the_manifest_names_later_count_without_scoring(scored, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("nodulemc.ensemble.ensemble.Ensemble.load", lambda *_, **__: 1 / 0)
    text = (scored / "m.csv").read_text()
    (scored / "later.csv").write_text(text.replace(",s,", ",p0,").replace("1.2.10", "1.2.9"))
    command = ["cohort", scored / "later.csv", "--output", scored / "out", "--resources", trained, "--device", "cpu"]
    try:
        assert cli.main([*map(str, command), "--precision", "fp32"]) == 0
        found = {row["AnnotationID"]: row["seen_in_training"] for row in read_rows(scored / "out" / "predictions.csv")}
        assert found == SEEN | {"b": "no", "d1": "patient", "d2": "patient"}
    finally:
        command[1] = scored / "m.csv"
        assert cli.main([*map(str, command), "--precision", "fp32"]) == 0


def evaluated(output, *arguments):
    assert cli.main(["evaluate", *map(str, arguments), "--output", str(output), "--bootstrap", "20"]) == 0
    return json.loads((output / "metrics.json").read_text()), (output / "report.html").read_text()


def test_evaluate_tells_seen_nodules_apart(scored, trained, tmp_path, caplog):
    metrics, page = evaluated(tmp_path, scored / "out" / "predictions.csv")
    seen = metrics["seen_in_training"]
    counts = {"nodules": 5, "same_scan": 3, "same_patient": 2, "unknown": 0}
    assert {key: seen[key] for key in counts} == counts
    rows = read_rows(scored / "out" / "predictions.csv")
    others = [row for row in rows if row["seen_in_training"] == "no"]
    auc = roc_auc_score([int(row["label"]) for row in others], [float(row["probability"]) for row in others])
    assert (seen["others"]["nodules"], seen["others"]["auc"]) == (2, auc)
    said = (
        "5 of 7 nodules are of patients that the ensemble was trained on: 3 by the scan, "
        f"2 by the PatientID alone; AUC without them: {auc:.4f}"
    )
    assert caplog.messages == [said]
    assert f"<b>Seen in training:</b> {said}" in page


def test_evaluate_says_what_made_the_predictions(scored, trained, tmp_path, capsys):
    metrics, page = evaluated(tmp_path, scored / "out" / "predictions.csv")
    digest = hashlib.sha256((trained / "ensemble.json").read_bytes()).hexdigest()
    assert metrics["ensembles"] == [{"sha256": digest, "trained_on": "made", "calibration": None, "nodules": 7}]
    line = f"redicted by ensemble {digest[:12]} (SHA-256), weights trained on: made, not calibrated"
    assert f"P{line}." in page
    assert f"p{line}" in capsys.readouterr().out.splitlines()


TABLE = [(f"n{k}", k % 2, f"1.2.{k}", f"p{k}") for k in range(4)]
PREDICTED = [(f"n{k}", (k % 3) / 3) for k in range(4)]


@pytest.fixture
def table(tmp_path):
    return write_rows(tmp_path / "t.csv", ("AnnotationID", "label", "SeriesInstanceUID", "PatientID"), TABLE)


def test_evaluate_takes_the_ensemble_and_the_table(trained, table, tmp_path, caplog):
    predictions = write_rows(tmp_path / "p.csv", ("AnnotationID", "probability"), PREDICTED)
    metrics, page = evaluated(tmp_path / "a", predictions, "--table", table)
    assert (metrics["seen_in_training"], metrics["ensembles"]) == (None, [])
    assert "Seen in training" not in page
    assert not caplog.messages
    metrics, _ = evaluated(tmp_path / "b", predictions, "--table", table, "--resources", trained)
    seen = metrics["seen_in_training"]
    assert (seen["same_scan"], seen["same_patient"], seen["others"]["malignant"]) == (1, 1, 1)
    write_rows(table, ("AnnotationID", "label"), [row[:2] for row in TABLE])
    metrics, _ = evaluated(tmp_path / "c", predictions, "--table", table, "--resources", trained)
    assert metrics["seen_in_training"] is None


def test_evaluate_where_everything_was_trained_on(trained, table, tmp_path, caplog):
    write_rows(table, ("AnnotationID", "label", "PatientID"), [(*row[:2], "p1") for row in TABLE])
    predictions = write_rows(tmp_path / "p.csv", ("AnnotationID", "probability"), PREDICTED)
    metrics, page = evaluated(tmp_path / "a", predictions, "--table", table, "--resources", trained)
    assert metrics["seen_in_training"]["others"] is None
    assert caplog.messages[0].endswith("4 by the PatientID alone; AUC without them: none")
    assert "AUC without them: none." in page


def test_evaluate_warns_where_the_ensemble_is_another_or_has_no_list(table, tmp_path, caplog):
    rows = [(*row, "f" * 64) for row in PREDICTED]
    predictions = write_rows(tmp_path / "p.csv", ("AnnotationID", "probability", "ensemble"), rows)
    folder_of(tmp_path / "other", a=None)
    evaluated(tmp_path / "a", predictions, "--table", table, "--resources", tmp_path / "other")
    assert caplog.messages == [
        f"{tmp_path}/other: not the ensemble, or not the calibration, that the predictions name",
        f"{tmp_path}/other: no trained_cases.csv, so it is not known what it was trained on",
    ]


def test_evaluate_refuses_an_unknown_word(table, tmp_path, capsys):
    rows = [(*row, "perhaps") for row in PREDICTED]
    predictions = write_rows(tmp_path / "p.csv", ("AnnotationID", "probability", "seen_in_training"), rows)
    assert cli.main(["evaluate", str(predictions), "--table", str(table), "--output", str(tmp_path / "o")]) == 2
    assert "seen_in_training is 'perhaps'" in capsys.readouterr().err


def test_predicts_json_says_what_made_it(trained, table, tmp_path):
    entries = [{"name": name, "point": [1, 2, 3], "probability": p} for name, p in PREDICTED]
    (tmp_path / "r").mkdir()
    calibration = {"method": "platt", "training_prevalence": 0.5, "fitted_prevalence": 0.1, "prevalence": 0.09}
    content = {"points": entries, "ensemble": {"path": "/e", "sha256": "a" * 64}, "trained_on": None}
    (tmp_path / "r" / "a.json").write_text(json.dumps(content | {"calibration": calibration}))
    metrics, page = evaluated(tmp_path / "o", tmp_path / "r", "--table", table, "--resources", trained)
    said = "platt, for a prevalence of 0.09"
    assert metrics["ensembles"] == [{"sha256": "a" * 64, "trained_on": None, "calibration": said, "nodules": 4}]
    assert f"weights trained on: nothing (untrained), calibrated: {said}." in page
    assert metrics["seen_in_training"]["nodules"] == 2


def test_calibrate_warns_and_keeps_the_list(tmp_path, caplog):
    before = folder_of(tmp_path / "e", a=CASES)
    rows = [(f"n{k}", k % 2, (k * 7 % 40 + 10 * (k % 2)) / 60, f"p{k}") for k in range(40)]
    predictions = write_rows(tmp_path / "p.csv", ("AnnotationID", "label", "probability", "PatientID"), rows)
    command = ("calibrate", predictions, "--method", "temperature", "--resources", tmp_path / "e")
    assert cli.main([*map(str, command)]) == 0
    assert caplog.messages == [f"{predictions}: 2 of 40 nodules are of patients that the ensemble was trained on"]
    after = read_manifest(tmp_path / "e")
    assert replace(after, calibration=None) == before
    assert read_trained_cases(after).of_member("a") == frozenset(CASES)


def test_dicom_without_a_patient_is_known_by_its_series(tmp_path):
    folder = dicom(tmp_path / "s", PatientID=None)
    uid = pydicom.dcmread(folder / "000.dcm").SeriesInstanceUID
    assert read_volume(folder).ids == ScanIds(frozenset({uid}), None)
