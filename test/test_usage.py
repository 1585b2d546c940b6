"""Command lines that are wrong, the help, and file names that the locale cannot write."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct
from dicom import write_dicom_series
from ensembles import make_untrained_ensemble

import nodulemc
from nodulemc import cli
from nodulemc.models.architecture import Architecture
from nodulemc.output.multiple_points import OUTPUT_NAME

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "nodulemc": ["-m", "nodulemc"],
    "inference.py": ["inference.py"],
    "nodulemc serve": ["-m", "nodulemc.grand_challenge"],
    "python -m nodulemc.grand_challenge.show": ["-m", "nodulemc.grand_challenge.show"],
}
C_LOCALES = [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]  # with Python's own switch to UTF-8, and without


def run(*words: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND: nodulemc: see `nodulemc --help`"),
        (["predct"], "unknown command predct: nodulemc: did you mean predict? see `nodulemc --help`"),
        (["--nonsense"], "unknown option --nonsense: nodulemc: use -h, --help, --version"),
        (["predict", "ct", "--ponts", "p"], "unknown option --ponts: nodulemc predict: did you mean --points? see "),
        (["predict", "ct", "--ponts=p"], "unknown option --ponts: nodulemc predict: did you mean --points? see "),
        (["predict", "ct", "--poin", "p"], "unknown option --poin: nodulemc predict: did you mean --points? see "),
        (["predict", "ct", "-o", "p"], "unknown option -o: nodulemc predict: see `nodulemc predict --help`"),
        (["predict", "ct"], "the following arguments are required: --points: nodulemc predict: see "),
        (["predict", "ct", "--points"], "--points: expected one argument: nodulemc predict: see "),
        (["predict", "a", "b", "--points", "p"], "unrecognized arguments: b: nodulemc predict: see "),
        (
            ["train", "--store", "s", "--output", "o", "--split", "a", "b", "c.yaml"],
            "the following arguments are required: CONFIG.yaml: nodulemc train: give CONFIG.yaml before --split and "
            "--seeds; see `nodulemc train --help`",
        ),
        (["bench", "--device", "gpu"], "--device gpu: nodulemc bench: use auto, cpu, cuda"),
        (["bench", "--nodules", "many"], "--nodules: 'many' is no whole number: nodulemc bench: see "),
        (
            ["calibrate", "p", "--resources", "e", "--method", "platt", "--prevalence", "half"],
            "--prevalence: 'half' is no number: nodulemc calibrate: see ",
        ),
        (["phantom", "--blocks", "--into", "ct"], "--into: not allowed with argument --blocks: nodulemc phantom: see "),
    ],
)
def test_usage_errors_have_the_form_of_all_errors(words, message, capsys):
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {message}")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_refuses_an_unknown_option_alike(name):
    done = run(*PROGRAMS[name], "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: unknown option --nonsense: {name}: ")
    assert done.stderr.count("\n") == 1


def test_negative_numbers_and_what_follows_two_dashes_are_no_options(capsys):
    assert cli.main(["split", "t.csv", "--seed", "-1", "--output", "s.json"]) == 2
    assert capsys.readouterr().err.startswith("error: --seed -1: ")
    assert cli.main(["cohort-status", "--", "--nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: no cohort: --nonsense")


@pytest.mark.parametrize("name", cli.COMMANDS)
@pytest.mark.parametrize("width", [40, 50, 90])
def test_help_fits_the_terminal(name, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text, example = capsys.readouterr().out.split("example:\n")
    usage, *paragraphs = text.split("\n\n")  # argparse breaks no word
    assert all(len(line) <= width or len(line.split()) == 1 for line in usage.splitlines())
    assert all(len(line) <= width or len(line.split()) <= 2 for text in paragraphs for line in text.splitlines())
    assert example.count("\n") == 1


def test_the_version():
    for words in (["-m", "nodulemc"], ["-m", "nodulemc.cli"]):
        done = run(*words, "--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"nodulemc {nodulemc.__version__}\n", "")


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ансамбль")
    make_untrained_ensemble(
        folder, architecture=Architecture("inception_i3d", decoder_widths=(8, 8, 8, 8, 8)), upscales=False
    )
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("locale", C_LOCALES)
def test_unicode_names_in_the_c_locale(tmp_path, resources, locale):
    folder = tmp_path / "Грудная клетка"
    write_dicom_series(make_ct(), folder / "серия")
    for k, path in enumerate(sorted((folder / "серия").iterdir())):
        path.rename(path.with_name(f"срез {k}.dcm"))
    x, y, z = centre_of(make_ct())
    (folder / "очаги.csv").write_text(f"AnnotationID,CoordX,CoordY,CoordZ\nочаг,{x},{y},{z}\n")
    done = run("-m", "nodulemc", "predict", folder / "серия", "--points", folder / "очаги.csv", "--masks",
               folder / "маски", "--output", folder / "итог.csv", "--resources", resources, "--device", "cpu",
               LC_ALL="C", LANG="C", **locale)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((folder / "итог.csv").read_text(encoding="utf-8").splitlines())
    assert row["AnnotationID"] == "очаг"
    assert (folder / "маски" / "очаг.mha").exists()
    (labels,) = (folder / "маски").glob("*.nii.gz")  # by the series' UID
    assert sitk.ReadImage(str(labels)).GetSize() == make_ct().GetSize()


@pytest.mark.heavy
@pytest.mark.parametrize("locale", C_LOCALES)
def test_the_container_program_in_the_c_locale(tmp_path, resources, locale):
    source, target = tmp_path / "вход", tmp_path / "выход"
    (source / "images" / "chest-ct").mkdir(parents=True)
    sitk.WriteImage(make_ct(), str(source / "images" / "chest-ct" / "снимок.mha"))
    points = {"points": [{"name": "очаг", "point": list(centre_of(make_ct()))}]}
    (source / "nodule-locations.json").write_text(json.dumps(points), encoding="utf-8")
    done = run("inference.py", "--input", source, "--output", target, "--resources", resources, "--device", "cpu",
               LC_ALL="C", LANG="C", **locale)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    content = json.loads((target / OUTPUT_NAME).read_text(encoding="utf-8"))
    assert content["points"][0]["name"] == "очаг"
