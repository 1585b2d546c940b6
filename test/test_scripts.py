"""The scripts' help and refusals; nothing here builds, installs or measures."""

import ast
import json
import subprocess
import sys
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
# The others there are modules of these.
PYTHON = [
    str(path.relative_to(REPOSITORY))
    for folder in ("benchmarks", "scripts")
    for path in sorted((REPOSITORY / folder).glob("*.py"))
    if "\nif __name__ == " in path.read_text()
]
ASK_EACH = """
import io, json, runpy, sys, traceback
from contextlib import redirect_stdout
from pathlib import Path

def answer(script):
    sys.argv, sys.path[0] = [script, "--help"], str(Path(script).parent)
    with redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            return ended.code or 0, said.getvalue()
        except Exception:
            return 1, traceback.format_exc()
    return None, said.getvalue()

print(json.dumps([*map(answer, sys.argv[1:])]))
"""


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


@pytest.mark.heavy
def test_every_python_script_says_what_it_is_for(tmp_path):
    """One process runs them all, as each alone would load PyTorch."""
    command = [sys.executable, "-c", ASK_EACH, *(REPOSITORY / script for script in PYTHON)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert len(answers) == len(PYTHON) >= 17
    for script, (code, said) in zip(PYTHON, answers, strict=True):
        assert code == 0, f"{script}: {said}"
        assert said.startswith(f"usage: {Path(script).name} ")
        assert ast.get_docstring(ast.parse((REPOSITORY / script).read_text())) in said
