"""Every corpus file through its parser, and a short coverage-guided run; `test/fuzz/fuzz.py` runs longer."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import fuzz, targets

CASES = [(folder.name, path) for folder in sorted(fuzz.CORPUS.iterdir()) for path in sorted(folder.iterdir())]
# What is good is read; weights of two tensors do not fill a network.
GOOD = (
    "good",
    "escapes",
    "old",
    "plain",
    "semicolons",
    "luna16",
    "tabs",
    "compressed",
    "members",
    "raw",
    "gzip",
    "slice_2",
    "baseline_member",
    "none",
    "radiograph",
    "attributes",
)
RUNS = 300


@pytest.mark.parametrize(("target", "path"), CASES, ids=lambda value: getattr(value, "name", value))
def test_every_corpus_file_is_read_or_refused(target, path):
    accepted = targets.run(target, path.read_bytes())
    assert accepted == (path.stem.split(".")[0] in GOOD and target != "weights")


def test_every_target_has_a_corpus():
    assert {target for target, _ in CASES} == set(targets.TARGETS)


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no Atheris for this Python or system")
def test_a_short_coverage_guided_run_finds_nothing(tmp_path):
    command = [sys.executable, str(Path(fuzz.__file__)), "--runs", str(RUNS), "--jobs", "2", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert [result["fault"] for result in report.values() if result["fault"]] == []
    assert done.returncode == 0
    assert min(result["tried"] for result in report.values()) >= RUNS
