"""The scripts' help and refusals; nothing here builds, installs or measures."""

import ast
import json
import os
import shutil
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


PRETENDING_PYTHON = """#!/bin/sh
case "$*" in
  *ensurepip*) ;;
  *"pip "*install*) echo "$*" >>pip.log ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *) echo "Python 3.12.0" ;;
esac
"""


@pytest.mark.heavy
def test_the_set_up_is_made_again_only_where_something_else_is_to_be_installed(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.sh", "scripts/options.sh", "requirements.txt", "pyproject.toml", "setup.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(PRETENDING_PYTHON)
    (tmp_path / "bin" / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    log = tmp_path / "pip.log"

    def installs(level: str) -> int:
        log.write_text("")
        subprocess.run([tmp_path / "scripts" / "setup.sh", level], cwd="/", capture_output=True, check=True)
        return len(log.read_text().splitlines())

    def change(name: str, before: str, after: str) -> None:
        content = (tmp_path / name).read_text()
        assert before in content
        (tmp_path / name).write_text(content.replace(before, after, 1))

    assert [installs(level) for level in ("runtime", "runtime", "all", "all", "runtime")] == [2, 0, 2, 0, 0]
    change("pyproject.toml", "line-length = 120", "line-length = 110")
    change("pyproject.toml", "[tool.pytest.ini_options]", "[tool.pytest.ini_options]\nminversion = '8'")
    change("pyproject.toml", "[tool.mypy]\nstrict = true", "[tool.mypy]\nstrict = false")
    assert installs("all") == 0
    for name, before, after in (
        ("pyproject.toml", '"pydicom>=3.0"', '"pydicom>=3.1"'),
        ("pyproject.toml", '"pytest>=8.4"', '"pytest>=8.5"'),
        ("pyproject.toml", '"setuptools>=77"', '"setuptools>=78"'),
        ("pyproject.toml", 'nodulemc = "nodulemc.cli:main"', 'nodule = "nodulemc.cli:main"'),
        ("pyproject.toml", '"nodulemc.resources" = ["*"]', '"nodulemc.resources" = []'),
        ("requirements.txt", "pydicom==", "pydicom>="),
        ("setup.py", "setup(", "setup( "),
    ):
        change(name, before, after)
        assert (installs("all"), installs("all")) == (2, 0), after
    # Another Python that comes first in PATH later on is not used, unless the environment's own is gone.
    (tmp_path / "bin" / "python3").write_text(PRETENDING_PYTHON.replace("3.12", "3.13"))
    assert installs("all") == 0
    (tmp_path / ".venv" / "bin" / "python").unlink()
    assert installs("all") == 2
    assert "3.13" in (tmp_path / ".venv" / "bin" / "python").read_text()


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
