import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.samples import make_predictions, multiple_points, write_predictions, write_table

from nodulemc.cli import main
from nodulemc.ensemble.calibration import METHODS, apply_calibration
from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest, write_manifest
from nodulemc.evaluation.delong import difference
from nodulemc.evaluation.fit_calibration import fit_calibration
from nodulemc.models.architecture import Architecture


@pytest.fixture(scope="module")
def sample():
    return make_predictions(seeds=1)


@pytest.fixture
def files(sample, tmp_path):
    return str(write_predictions(tmp_path / "p.csv", sample)), str(write_table(tmp_path / "t.csv", sample))


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_evaluate_writes_metrics_and_report(sample, files, tmp_path, capsys):
    predictions, table = files
    output = tmp_path / "new" / "folder"
    assert run("evaluate", predictions, "--table", table, "--bootstrap", 40, "--output", output) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["bootstrap"] == {"resamples": 40, "unit": "patient"}
    assert list(metrics["seeds"]) == ["seed_0"]
    assert set(metrics["subgroups"]) == {"age", "sex", "diameter_mm"}
    assert (output / "report.html").read_text().startswith("<!DOCTYPE html>")
    printed = capsys.readouterr()
    assert f"auc                             {metrics['auc']:.4f}" in printed.out
    assert printed.out.endswith(f"\nwritten: {output / 'report.html'}, {output / 'metrics.json'}\n")
    assert printed.err == ""


def test_a_long_bootstrap_shows_progress(sample, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nodulemc.evaluation.bootstrap.QUIET_S", 0.0)
    predictions, table = files
    for command in (["evaluate", predictions, "--output", tmp_path], ["compare", predictions, predictions]):
        assert run(*command, "--table", table, "--bootstrap", 250) == 0
        first, second, third, *_ = capsys.readouterr().err.splitlines()
        for line, done in ((first, "1/3"), (second, "2/3"), (third, "3/3")):
            assert line.startswith(f"bootstrap, {len(sample)} nodules: {done}, ")


@pytest.mark.heavy
@pytest.mark.parametrize("labels", ["01", "0001"])
def test_evaluate_where_only_the_last_nodule_is_malignant(labels, tmp_path):
    rows = "".join(f"{k},{label},0.{k + 1}\n" for k, label in enumerate(labels))
    (tmp_path / "p.csv").write_text("AnnotationID,label,probability\n" + rows)
    command = [sys.executable, "-m", "nodulemc.cli", "evaluate", "p.csv", "--bootstrap", "20", "--output", "out"]
    subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["auc"] == 1
    assert "other-band" not in re.findall(r'class="([^"]*)"', (tmp_path / "out/report.html").read_text())


def few_rows(patients, malignant):
    """Two nodules a patient, the first patients' malignant; more malignant ones have the higher probabilities."""
    header = "AnnotationID,label,probability,PatientID,Gender\n"
    labels = [int(patient < malignant) for patient in range(patients)]
    rows = [
        f"{p}_{k},{label},{0.1 + 0.5 * label + 0.01 * p},{p},{'Male' if p % 2 else 'Female'}\n"
        for p, label in enumerate(labels)
        for k in range(2)
    ]
    return header + "".join(rows)


@pytest.mark.parametrize(
    ("patients", "malignant", "words"),
    [
        (20, 10, None),
        (19, 9, "only 9 patients with malignant nodules"),
        (13, 12, "only 1 patient with benign nodules"),
        (6, 3, "only 3 patients with malignant nodules and 3 patients with benign nodules"),
    ],
)
def test_small_samples_come_with_a_caution(tmp_path, capsys, patients, malignant, words):
    (tmp_path / "p.csv").write_text(few_rows(patients, malignant))
    assert run("evaluate", tmp_path / "p.csv", "--bootstrap", 20, "--output", tmp_path / "out") == 0
    caution = words and f"{words}: intervals from so few cannot be relied on"
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    page = (tmp_path / "out/report.html").read_text()
    printed = capsys.readouterr().out
    assert metrics["caution"] == caution
    assert metrics["patients"] == patients
    assert ("caution: " in printed) == ("<b>Caution:</b>" in page) == bool(words)
    assert f"caution: {caution}" in printed or not words
    assert f"<b>Caution:</b> {caution}." in page or not words
    # Both sexes have at most half of the patients of each class.
    sexes = metrics["subgroups"]["sex"].values()
    assert all(bool(group["caution"]) == (group["auc"] is not None) for group in sexes)
    assert page.count("†</span>") == sum(g["auc"] is not None for g in sexes) + (words is not None)
    assert run("compare", tmp_path / "p.csv", tmp_path / "p.csv", "--bootstrap", 20) == 0
    assert ("caution: " in capsys.readouterr().out) == bool(words)


def test_a_cautions_unit_is_the_nodule_where_patients_are_not_known(tmp_path, capsys):
    rows = "".join(f"n{k},{int(k < 2)},0.5\n" for k in range(12))
    (tmp_path / "p.csv").write_text("AnnotationID,label,probability\n" + rows)
    assert run("evaluate", tmp_path / "p.csv", "--bootstrap", 20, "--output", tmp_path / "out") == 0
    assert "caution: only 2 malignant nodules: intervals" in capsys.readouterr().out


def test_no_interval_of_a_single_nodules_class(tmp_path, capsys):
    for name, last in (("p.csv", 0.9), ("q.csv", 0.2)):
        (tmp_path / name).write_text(f"AnnotationID,label,probability\na,0,0.1\nb,0,0.5\nc,1,{last}\n")
    assert run("compare", tmp_path / "p.csv", tmp_path / "q.csv", "--bootstrap", 20) == 0
    assert "DeLong      no interval: a class has too few nodules\n" in capsys.readouterr().out


def test_evaluate_a_folder_of_grand_challenge_results(sample, files, tmp_path, caplog):
    folder = tmp_path / "results"
    folder.mkdir()
    points = list(zip(sample.ids, sample.probabilities.tolist(), strict=True))
    (folder / "a.json").write_text(json.dumps(multiple_points(points[:150])))
    (folder / "b.json").write_text(json.dumps(multiple_points([*points[150:-1], ("stranger", 0.5)])))
    assert run("evaluate", folder, "--table", files[1], "--bootstrap", 10, "--output", tmp_path / "out") == 0
    assert caplog.messages == [f"1 omitted: {sample.ids[-1]}", "1 unknown: stranger"]
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["matching"] == {"omitted": [sample.ids[-1]], "duplicate": [], "unknown": ["stranger"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: nothing to evaluate"),
        (["none.csv"], "error: cannot read the file"),
        (["none.csv", "--bootstrap", "0"], "error: --bootstrap 0"),
        (["--store", "none"], "error: no block store"),
    ],
)
def test_evaluate_refuses(arguments, message, tmp_path, capsys):
    assert run("evaluate", *arguments, "--output", tmp_path / "out") == 2
    errors = capsys.readouterr().err
    assert errors.startswith(message)
    assert errors.count("\n") == 1


def test_compare_prints_the_test(sample, files, tmp_path, capsys):
    other = replace(sample, probabilities=sample.seeds["seed_0"])
    second = write_predictions(tmp_path / "q.csv", other)
    assert run("compare", files[0], second, "--table", files[1], "--bootstrap", 100) == 0
    value, interval, p = difference(sample.labels, sample.probabilities, other.probabilities)
    printed = capsys.readouterr().out
    assert f"difference  {value:+.4f}\n" in printed
    assert f"DeLong      95 % CI {interval[0]:+.4f} to {interval[1]:+.4f}, p = {p:.2g}\n" in printed
    assert f"100 resamples of {sample.patients.max() + 1} patients" in printed


def test_compare_refuses_other_nodules(sample, files, tmp_path, capsys):
    second = write_predictions(tmp_path / "q.csv", sample.take(np.arange(200)))
    assert run("compare", files[0], second) == 2
    assert "100 nodules of" in capsys.readouterr().err


@pytest.fixture
def ensemble(tmp_path):
    """An ensemble folder without its seeds' files, which calibration does not need."""
    folder = tmp_path / "ensemble"
    folder.mkdir()
    member = Member("seed_1.safetensors", "0" * 64, Architecture("inception_i3d"), seed=1)
    write_manifest(folder, EnsembleManifest((member,), trained_on="phantoms"))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_calibrate_stores_the_map_and_nothing_else(method, sample, files, ensemble, capsys):
    before = read_manifest(ensemble)
    arguments = ("calibrate", files[0], "--method", method, "--prevalence", 0.09, "--resources", ensemble)
    assert run(*arguments) == 0
    after = read_manifest(ensemble)
    assert replace(after, calibration=None) == before
    expected = fit_calibration(sample, method, training_prevalence=0.5, prevalence=0.09)
    assert after.calibration == expected
    shown = capsys.readouterr().out
    assert f"written: {ensemble / 'ensemble.json'}, for a prevalence of 0.09" in shown
    mean = apply_calibration(sample.probabilities, after.calibration).mean()
    assert mean < sample.labels.mean()


def test_calibrate_refuses_without_touching_the_ensemble(files, ensemble, capsys):
    before = (ensemble / "ensemble.json").read_bytes()
    assert run("calibrate", files[0], "--method", "platt", "--prevalence", 9, "--resources", ensemble) == 2
    assert capsys.readouterr().err.startswith("error: prevalence 9.0: calibrate: ")
    assert (ensemble / "ensemble.json").read_bytes() == before


def test_calibrate_refuses_probabilities_that_are_calibrated(files, ensemble, tmp_path, capsys):
    header, *rows = Path(files[0]).read_text().splitlines()
    calibrated = [f"{header},uncalibrated,calibration", *(f"{row},0.5,platt" for row in rows)]
    (tmp_path / "calibrated.csv").write_text("\n".join(calibrated) + "\n")
    arguments = ("calibrate", tmp_path / "calibrated.csv", "--method", "platt", "--resources", ensemble)
    assert run(*arguments) == 2
    assert "calibrated already" in capsys.readouterr().err
    assert read_manifest(ensemble).calibration is None
