"""The shell scripts' help and refusals; nothing here builds or installs."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = ["build.sh", "export.sh", "test.sh", "test_run.sh", "scripts/container_test.sh", "scripts/docs.sh",
           "scripts/lock.sh", "scripts/setup.sh", "scripts/supply_chain.sh"]  # fmt: skip
WITH_VALUE = [
    *(("build.sh", option) for option in ("--tag", "--base-image", "--api-method")),
    *(("export.sh", option) for option in ("--tag", "--base-image", "--resources", "--output")),
    *(("test_run.sh", option) for option in ("--tag", "--base-image")),
    ("scripts/supply_chain.sh", "--output"),
]


def run(script, *words, folder=REPOSITORY) -> subprocess.CompletedProcess:
    return subprocess.run([REPOSITORY / script, *words], cwd=folder, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess, message: str) -> bool:
    one_line = done.stderr.count("\n") == 1 and done.stderr.startswith(f"error: {message}")
    return one_line and (done.returncode, done.stdout) == (2, "")


def test_every_script_is_tried():
    found = [*REPOSITORY.glob("*.sh"), *(REPOSITORY / "scripts").glob("*.sh")]
    assert {str(path.relative_to(REPOSITORY)) for path in found} == {*SCRIPTS, "scripts/options.sh"}


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_scripts_first_comment(script, option, tmp_path):
    done = run(script, option, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = (line for line in (REPOSITORY / script).read_text().splitlines() if line.startswith("# "))
    assert done.stdout.startswith(f"{first.removeprefix('# ')}\n")
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "test.sh"])  # which hands them to pytest
def test_an_unknown_option_is_refused(script):
    assert refused(run(script, "--nonsense"), f"unknown option --nonsense: {Path(script).name}: see --help")


@pytest.mark.parametrize(("script", "option"), WITH_VALUE)
def test_an_option_without_its_value_is_refused(script, option):
    for words in ([option], [option, ""]):
        assert refused(run(script, *words), f"{option} has no value: {Path(script).name}: ")


def test_other_refusals(tmp_path):
    assert refused(run("build.sh", "--api-method", "neither"), "unknown calling convention: ")
    assert refused(run("scripts/setup.sh"), "no such level ''")
    assert refused(run("export.sh", "--resources", tmp_path), "no ensemble.json: ")
    (tmp_path / "file").touch()
    assert refused(run("export.sh", "--output", tmp_path / "file"), f"cannot make the folder: {tmp_path / 'file'}: ")
