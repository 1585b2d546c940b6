import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bad_inputs
import pytest
from bad_inputs import ROWS, judge

from nodulemc.errors import PointsError
from nodulemc.output.detailed import table
from nodulemc.points.reading import Nodule
from nodulemc.prediction import NodulePrediction

HOSTILE = [row for row in ROWS if row.hostile]


def check_end(row, outcome, message):
    assert outcome == row.outcome, message
    assert row.message in message
    assert "\n" not in message


@pytest.mark.heavy
@pytest.mark.parametrize("row", [row for row in ROWS if not row.hostile], ids=lambda row: row.name)
def test_every_bad_input_meets_its_stated_end(tmp_path, row):
    check_end(row, *judge(row, tmp_path))


@pytest.mark.heavy
def test_hostile_inputs_do_so_in_little_time_and_memory():
    command = [sys.executable, str(Path(bad_inputs.__file__)), *(row.name for row in HOSTILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(bad_inputs.__file__).parents[1])
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for row, result in zip(HOSTILE, results, strict=True):
        check_end(row, result["outcome"], result["message"])
    # A fifth of the 300 s and a sixteenth of the 16 GiB that Grand-Challenge gives one case.
    assert max(result["seconds"] for result in results) < 60
    assert max(result["mib"] for result in results) < 1024


def test_a_name_cannot_command_the_terminal():
    manifest = SimpleNamespace(member_names=["s"], origin="", identity={"path": "\x1b[2J", "sha256": "0" * 64})
    shown = table([NodulePrediction(Nodule("\x1b[2Jn1\n", (0, 0, 0)), 0.5, (0.5,))], manifest)
    assert shown.splitlines()[1].split()[0] == r"\x1b[2Jn1\n"
    assert shown.splitlines()[2] == r"ensemble: \x1b[2J (SHA-256 000000000000)"
    assert str(PointsError("a", "\x1b]0;x\x07", "b")) == r"a: \x1b]0;x\x07: b"
