import csv
import json
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import SimpleITK as sitk
from cohort.made import make_cohort, read_rows, results, scan_file, write_rows
from conftest import centre_of, hear_interrupts, make_ct
from dicom import write_dicom_series
from ensembles import make_untrained_ensemble

from nodulemc import cli
from nodulemc.cohort.results_db import ResultsDb
from nodulemc.cohort.run import run_cohort
from nodulemc.ensemble.ensemble import Ensemble

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    make_untrained_ensemble(folder, upscales=False)
    return folder


@cache
def load_once(load, folder: Path, options: tuple) -> Ensemble:
    return load(folder, **dict(options))


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """Each folder's ensemble is loaded once; other tests load them each time."""
    load = Ensemble.load
    monkeypatch.setattr(
        Ensemble, "load", lambda folder, **options: load_once(load, folder, (*sorted(options.items()),))
    )


def cohort(manifest: Path, output: Path, ensemble: Path, *options: str) -> int:
    names = ("--output", output, "--resources", ensemble, "--device", "cpu", "--precision", "fp32")
    return cli.main(["cohort", *map(str, (manifest, *names)), *options])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A manifest with everything that can be wrong with a scan, among good ones."""
    folder = tmp_path_factory.mktemp("mixed")
    image = make_ct()
    x, y, z = centre_of(image)
    sitk.WriteImage(image, str(folder / "good.mha"))
    sitk.WriteImage(image, str(folder / "outside.nii.gz"))
    write_dicom_series(make_ct(seed=3), folder / "series")
    write_dicom_series(image, folder / "unreadable")
    for file in (folder / "unreadable").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    rows = [
        ("good.mha", "good", x, y, z, 0),
        ("missing.mha", "missing", x, y, z, 1),
        ("series", "series", x, y, z, 1),
        ("unreadable", "unreadable", x, y, z, 1),
        ("outside.nii.gz", "inside", x, y, z, 1),
        ("outside.nii.gz", "outside", x, y, z + 90, 1),
        ("doubled.mha", "good", x, y, z, 0),
    ]
    write_rows(folder / "manifest.csv", ("ct", "AnnotationID", "x", "y", "z", "label"), rows)
    return folder


def test_a_bad_scan_does_not_stop_the_others(mixed, ensemble, tmp_path, capsys):
    output = tmp_path / "out"
    assert cohort(mixed / "manifest.csv", output, ensemble) == 3
    failed = {row["scan"]: row["error"] for row in read_rows(output / "failures.csv")}
    assert list(failed) == ["missing.mha", "unreadable", "outside.nii.gz", "doubled.mha"]
    for scan, message in (
        ("missing.mha", "cannot read (No such file or directory)"),
        ("unreadable", "no DICOM series"),
        ("outside.nii.gz", "nodule 'outside' lies "),
        ("doubled.mha", "duplicate AnnotationID 'good'"),
    ):
        assert failed[scan].startswith(message)
    rows = read_rows(output / "predictions.csv")
    assert [row["AnnotationID"] for row in rows] == ["good", "series"]
    shown = capsys.readouterr()
    assert "6 scans: 2 done (2 nodules), 4 failed, 0 to do" in shown.out
    assert "failed: missing.mha: cannot read" in shown.out
    assert "cohort: 5/5" in shown.err
    assert "scans/s" in shown.err

    for row, ct in zip(rows, ("good.mha", "series"), strict=True):
        points, single = tmp_path / "p.json", tmp_path / "one.json"
        points.write_text(json.dumps({"points": [{"name": "n", "point": list(centre_of(make_ct()))}]}))
        names = ("--points", points, "--output", single, "--resources", ensemble, "--precision", "fp32")
        assert cli.main(["predict", *map(str, (mixed / ct, *names)), "--device", "cpu"]) == 0
        (point,) = json.loads(single.read_text())["points"]
        assert float(row["probability"]) == pytest.approx(point["probability"], abs=1e-6)
        assert float(row["seed_1"]) == pytest.approx(point["per_seed"]["seed_1"], abs=1e-6)

    assert cli.main(["cohort-status", str(output)]) == 0
    assert "6 scans: 2 done (2 nodules), 4 failed, 0 to do" in capsys.readouterr().out
    assert cli.main(["cohort-export", str(output), "--output", str(tmp_path / "again"), "--json"]) == 3
    again = tmp_path / "again"
    names = ("predictions.csv", "predictions.parquet", "failures.csv", "json")
    written = ", ".join(str(again / name) for name in names)
    assert capsys.readouterr().out.endswith(f"\nwritten: {written}\n")
    assert {path.name for path in again.iterdir()} >= set(names)
    for name in ("predictions.csv", "failures.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "again" / "json").glob("*.json")) == ["good.json", "series.json"]


def test_output_feeds_evaluate(ensemble, tmp_path, capsys):
    luna, output = make_cohort(tmp_path / "luna", 2), tmp_path / "out"
    assert cohort(luna, output, ensemble) == 0
    predictions, table = str(output / "predictions.csv"), str(luna / "table.csv")
    assert cli.main(["evaluate", predictions, "--output", str(tmp_path / "ev"), "--bootstrap", "20"]) == 0
    metrics = json.loads((tmp_path / "ev" / "metrics.json").read_text())
    assert (metrics["nodules"], metrics["malignant"]) == (3, 1)
    assert cli.main(["evaluate", predictions, "--table", table, "--output", str(tmp_path / "ev2")]) == 0


def test_changed_weights_are_noticed(ensemble, tmp_path):
    luna, output, other = make_cohort(tmp_path / "luna", 1), tmp_path / "out", tmp_path / "other"
    make_untrained_ensemble(other, (2,), upscales=False)
    assert cohort(luna, output, ensemble) == 0
    first = results(output)
    assert cohort(luna, output, other) == 0
    assert results(output)[scan_file(0)] != first[scan_file(0)]
    assert list(read_rows(output / "predictions.csv")[0])[3:5] == ["seed_2", "PatientID"]


def test_no_ensemble_is_loaded_where_nothing_is_left(ensemble, tmp_path, monkeypatch):
    luna, output = make_cohort(tmp_path / "luna", 1), tmp_path / "out"
    assert cohort(luna, output, ensemble) == 0
    monkeypatch.setattr("nodulemc.ensemble.ensemble.Ensemble.load", lambda *_, **__: 1 / 0)
    assert cohort(luna, output, ensemble) == 0


def test_each_shard_has_its_own_failures(ensemble, tmp_path):
    luna, output = make_cohort(tmp_path / "luna", 2), tmp_path / "out"
    (luna / scan_file(1)).unlink()
    assert cohort(luna, output, ensemble, "--shard", "2/2") == 3
    assert cohort(luna, output, ensemble, "--shard", "1/2") == 0


def test_exit_code_where_scans_are_left(ensemble, tmp_path, monkeypatch, capsys):
    """As where another run with other weights has begun meanwhile."""
    luna, output = make_cohort(tmp_path / "luna", 2), tmp_path / "out"

    class Lazy:
        def outcomes(self, jobs):
            return iter(())

    monkeypatch.setattr("nodulemc.cohort.run.run_cohort", lambda task, _, run=run_cohort: run(task, Lazy()))
    assert cohort(luna, output, ensemble) == 3
    assert "2 scans: 0 done (0 nodules), 0 failed, 2 to do" in capsys.readouterr().out


def test_status_says_why_results_do_not_count(ensemble, tmp_path, monkeypatch, capsys):
    luna, output, other = make_cohort(tmp_path / "luna", 2), tmp_path / "out", tmp_path / "other"
    make_untrained_ensemble(other, (2,), upscales=False)
    assert cohort(luna, output, ensemble) == 0
    monkeypatch.setattr("nodulemc.cohort.local_engine.LocalEngine.outcomes", lambda self, jobs: iter(()))
    for again, reason in (((other,), "other weights"), ((ensemble, "--precision", "bf16"), "fp32")):
        assert cohort(luna, output, *again) == 3
        capsys.readouterr()
        assert cli.main(["cohort-status", str(output)]) == 0
        shown = capsys.readouterr().out
        assert "2 scans: 0 done (0 nodules), 0 failed, 2 to do" in shown
        assert f"2 of those to do have results that do not count: {reason}\n" in shown
    assert cohort(luna, output, ensemble) == 0
    assert "do not count" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "p.csv", "--output", "out"),
        ("compare", "p.csv", "p.csv"),
        ("calibrate", "p.csv", "--method", "platt", "--resources", "e"),
    ],
)
def test_evaluation_without_its_extra(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(command) == 2
    assert capsys.readouterr().err.endswith(": report: pip install 'nodulemc[report]'\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "0/2"), "--shard 0/2"),
        (("--shard", "3/2"), "--shard 3/2"),
        (("--shard", "half"), "--shard half"),
        (("--workers", "0"), "--workers 0"),
        (("--address", "host:1"), "--address with --engine local"),
        (("--engine", "ray", "--workers", "2"), "--workers with --engine ray"),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    assert cli.main(["cohort", "m.csv", "--output", str(tmp_path / "out"), *options]) == 2
    assert f"error: {message}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_cohort(tmp_path, capsys):
    for command in ("cohort-status", "cohort-export"):
        assert cli.main([command, str(tmp_path)]) == 2
        assert "error: no cohort: " in capsys.readouterr().err


def start(folder: Path, output: Path, seconds: float) -> subprocess.Popen:
    program = Path(__file__).with_name("run_made.py")
    command = [sys.executable, program, folder, output, str(seconds)]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)


def wait_for_results(output: Path, scans: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = output / "cohort.sqlite"
        if path.exists():
            store = ResultsDb(path)
            done = 0 if store.is_empty else len(store.records())
            store.close()
            if done >= scans:
                return
        time.sleep(0.05)
    pytest.fail("no results within a minute")


def test_interrupted_run_goes_on(tmp_path, capsys):
    luna, output = make_cohort(tmp_path / "luna", 8), tmp_path / "out"
    with start(luna, output, 0.2) as process:
        wait_for_results(output, 2)
        assert cli.main(["cohort-status", str(output)]) == 0
        shown = capsys.readouterr().out
        assert "1 run at work, " in shown
        assert " scans/s, " in shown
        assert cli.main(["cohort-export", str(output), "--output", str(tmp_path / "early")]) == 3
        capsys.readouterr()
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert message.endswith("interrupted\n")
    assert "Traceback" not in message
    done = len(results(output))
    assert 2 <= done < 8
    assert len(read_rows(tmp_path / "early" / "predictions.csv")) >= 2
    assert cli.main(["cohort-status", str(output)]) == 0
    assert f"8 scans: {done} done" in (shown := capsys.readouterr().out)
    assert "at work" not in shown
    with start(luna, output, 0) as process:
        assert f"cohort: {8 - done}/{8 - done}" in process.communicate(timeout=60)[1]
    assert len(results(output)) == 8


def test_manifest_is_read_before_anything_is_made(tmp_path):
    with (tmp_path / "m.csv").open("w") as file:
        csv.writer(file).writerow(["nothing"])
    assert cli.main(["cohort", str(tmp_path / "m.csv"), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
