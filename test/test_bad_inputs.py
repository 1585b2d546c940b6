import json
import subprocess
import sys
from pathlib import Path

import bad_inputs
import pytest
from bad_inputs import ROWS, judge


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_bad_input_meets_its_stated_end(tmp_path, row):
    outcome, message = judge(row, tmp_path)
    assert outcome == row.outcome, message
    assert row.message in message
    assert "\n" not in message


def test_hostile_inputs_take_little_time_and_memory():
    hostile = [row for row in ROWS if row.hostile]
    command = [sys.executable, str(Path(bad_inputs.__file__)), *(row.name for row in hostile)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(bad_inputs.__file__).parents[1])
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["outcome"] for result in results] == [row.outcome for row in hostile]
    # A fifth of the 300 s and a sixteenth of the 16 GiB that the platform gives one case.
    assert max(result["seconds"] for result in results) < 60
    assert max(result["mib"] for result in results) < 1024
