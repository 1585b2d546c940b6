"""Runs that are killed with SIGKILL at random moments, and what the next run makes of them."""

import signal
import sqlite3
import subprocess
import sys
import time
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import numpy as np
import pytest
from cohort.made import make_cohort, results

from nodulemc.errors import ConfigError

RUN_MADE = Path(__file__).with_name("run_made.py")
KILLS = 20
SCANS = 24
SECONDS_PER_NODULE = 0.06
LATEST_S = 3.0


def run(folder: Path, output: Path, seconds_per_nodule: float, limit: float | None = None) -> int:
    """A run's exit code; after ``limit`` seconds it is killed."""
    command = [sys.executable, RUN_MADE, folder, output, str(seconds_per_nodule)]
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


PAGED_SCANS = 10
PAGE_KILLS = 3


def files(pages: Path) -> dict[str, bytes]:
    """All there is in a folder of pages but the locks."""
    found = (path for path in pages.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(pages)): path.read_bytes() for path in found}


def times(pages: Path) -> dict[str, int]:
    """When each file was written."""
    return {name: (pages / name).stat().st_mtime_ns for name in files(pages)}


def start_with_pages(luna: Path, output: Path, seconds_per_nodule: float) -> BaseProcess:
    return forked.start(RUN_MADE, luna, output, seconds_per_nodule, output / "pages")


@pytest.mark.heavy
def test_killed_runs_with_pages_end_as_an_unbroken_one(tmp_path):
    """Killed each time as further pages are there: all of them whole, and in the end the same bytes everywhere."""
    luna = make_cohort(tmp_path / "luna", PAGED_SCANS)
    unbroken, output = tmp_path / "unbroken", tmp_path / "out"
    assert forked.code_of(start_with_pages(luna, unbroken, 0)) == 0
    expected = files(unbroken / "pages")
    assert len(expected) == PAGED_SCANS + 1
    written = {}
    for _ in range(PAGE_KILLS):
        process = start_with_pages(luna, output, 0.1)
        while len([*(output / "pages").rglob("*.html")]) == len(written):
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        assert forked.code_of(process) == -signal.SIGKILL
        pages = files(output / "pages")
        assert set(written) < set(pages) < set(expected)
        assert pages.items() <= expected.items(), "a page is not whole, or another"
        assert set(pages) <= {f"scans/{Path(scan).stem}.html" for scan in known(output)}, "a page without a result"
        assert written.items() <= times(output / "pages").items(), "a page was written twice"
        written = times(output / "pages")
    assert forked.code_of(start_with_pages(luna, output, 0)) == 0
    assert files(output / "pages") == expected
    assert written.items() <= times(output / "pages").items(), "a page was written twice"
    for name in ("predictions.csv", "predictions.parquet"):
        assert (output / name).read_bytes() == (unbroken / name).read_bytes()
