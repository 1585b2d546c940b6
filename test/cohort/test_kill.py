"""Runs that are killed with SIGKILL at random moments, and what the next run makes of them."""

import signal
import sqlite3
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from cohort.made import make_cohort, results

from nodulemc.errors import ConfigError

KILLS = 20
SCANS = 24
SECONDS_PER_NODULE = 0.06
LATEST_S = 3.0


def run(folder: Path, output: Path, seconds_per_nodule: float, limit: float | None = None) -> int:
    """A run's exit code; after ``limit`` seconds it is killed."""
    program = Path(__file__).with_name("run_made.py")
    command = [sys.executable, program, folder, output, str(seconds_per_nodule)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        return process.wait()


def known(output: Path) -> dict:
    """The results so far; a kill may come before there is a cohort at all."""
    try:
        return results(output)
    except ConfigError as error:
        if "no cohort" not in str(error):
            raise
        return {}


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    """Cohorts are killed again and again until they are finished, at whatever they do: starting, scoring, writing."""
    luna = make_cohort(tmp_path / "luna", SCANS)
    assert run(luna, tmp_path / "unbroken", 0) == 0
    expected = results(tmp_path / "unbroken")
    assert len(expected) == SCANS
    moments = np.random.default_rng(7)
    kills, killed_at_work = 0, 0
    for number in count():
        output = tmp_path / f"out{number}"
        done: dict = {}
        while (status := run(luna, output, SECONDS_PER_NODULE, moments.uniform(0.1, LATEST_S))) != 0:
            assert status == -signal.SIGKILL
            kills += 1
            before, done = done, known(output)
            killed_at_work += done != before
            assert before.items() <= done.items(), "a kill has cost results"
            assert done.items() <= expected.items()
            if (output / "cohort.sqlite").exists():
                with sqlite3.connect(output / "cohort.sqlite") as store:
                    assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert list(results(output).items()) == list(expected.items())
        name = "predictions.csv"
        assert (output / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
        if kills >= KILLS:
            break
    assert killed_at_work >= KILLS / 4
