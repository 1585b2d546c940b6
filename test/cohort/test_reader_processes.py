import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cohort.made import blocked_signals, make_cohort, read_or_die, scan_file

from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.read_scan import Failed, Job, Read, Unchanged, read_scan
from nodulemc.cohort.reader_processes import Readers
from nodulemc.cohort.scan import Scan
from nodulemc.ct.volume import read_volume
from nodulemc.errors import TableError
from nodulemc.prediction import extract_patches

pytestmark = pytest.mark.heavy


def jobs_of(folder: Path, scans: int) -> list[Job]:
    return [Job(scan) for scan in read_cohort_manifest(make_cohort(folder, scans))]


def collect(readers: Readers, nodules: int = 1) -> dict:
    found = [result for batch in readers.batches(nodules) for result in batch]
    assert len({job.scan.name for job, _ in found}) == len(found)
    return {job.scan.name: reading for job, reading in found}


def test_every_scan_is_read_once_and_right(tmp_path):
    jobs = jobs_of(tmp_path / "luna", 9)
    with Readers(read_scan, jobs, 2) as readers:
        readings = collect(readers)
    assert set(readings) == {scan_file(k) for k in range(9)}
    for job in jobs:
        patches = extract_patches(read_volume(job.scan.path), job.scan.points)
        assert (readings[job.scan.name].patches == patches).all()


def test_batches_gather_what_is_there(tmp_path):
    with Readers(read_scan, jobs_of(tmp_path / "luna", 6), 1) as readers:
        while readers._results.qsize() < 3:  # what it may read ahead
            time.sleep(0.01)
        first = next(readers.batches(4))
    assert sum(len(reading.nodules) for _, reading in first) == 4  # of scans with 1, 2 and 1


def test_scans_are_not_read_far_ahead(tmp_path):
    """Patches that nobody has taken yet would fill the memory."""
    jobs = jobs_of(tmp_path / "luna", 2) * 20
    taken = []
    with Readers(read_scan, (taken.append(job) or job for job in jobs), 2) as readers:
        for done, _ in enumerate(readers.batches(1), start=1):
            if done == 1:
                time.sleep(1)
            assert len(taken) <= done + 6
    assert len(taken) == 40


def test_a_dead_process_costs_its_scan_at_most(tmp_path):
    """The first scan kills its process whenever it is read, the second one once."""
    with Readers(read_or_die, jobs_of(tmp_path / "luna", 6), 2) as readers:
        readings = collect(readers)
    assert {name: type(reading) for name, reading in readings.items()} == {
        scan_file(0): Failed,
        **{scan_file(k): Read for k in range(1, 6)},
    }
    assert "died 2 times (signal SIGKILL)" in str(readings[scan_file(0)].error)
    assert "--retry-failed" in str(readings[scan_file(0)].error)


def test_a_fault_in_the_jobs_is_raised():
    def jobs():
        yield from ()
        raise TableError("bad", "here", "repair")

    with Readers(read_scan, jobs(), 2) as readers, pytest.raises(TableError, match="bad: here"):
        collect(readers)


def test_processes_that_do_not_start_are_no_scans_fault(tmp_path):
    """Here they cannot import the script that started them."""
    code = """
from nodulemc.program import exit_code_of
from nodulemc.cohort.reader_processes import Readers
from nodulemc.cohort.read_scan import Job, read_scan
from nodulemc.cohort.scan import Scan
from pathlib import Path
def main():
    with Readers(read_scan, [Job(Scan("a", Path("a"), ()))] * 9, 2) as readers:
        print(list(readers.batches(1)))
raise SystemExit(exit_code_of(main))"""
    run = subprocess.run([sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stdout == ""
    assert "error: a reading process does not start (exit status 1): " in run.stderr


def test_processes_are_deaf_to_a_terminal_from_their_start():
    """A terminal's Ctrl-C reaches them, too, and it would show as a traceback of each."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Readers(blocked_signals, [Job(Scan("a", Path("a"), ()))] * 2, 1) as readers:
        (first,), (second,) = readers.batches(1)
    assert signal.SIGINT in first[1] & second[1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_processes_end_with_a_killed_run():
    """They hold the other end of its standard output, which is closed when the last of them has ended."""
    code = """if __name__ == "__main__":
        import os, pathlib
        from nodulemc.cohort.reader_processes import Readers
        from nodulemc.cohort.read_scan import Job, read_scan
        from nodulemc.cohort.scan import Scan
        with Readers(read_scan, [Job(Scan("a", pathlib.Path("a"), ()))] * 9, 2) as readers:
            results = readers.batches(1)
            for _ in range(2):
                next(results)
            os.kill(os.getpid(), 9)"""
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert killed.communicate(timeout=60) == (b"", None)
    assert killed.returncode == -9


def test_known_content_is_not_read_again(tmp_path):
    (job,) = jobs_of(tmp_path / "luna", 1)
    first = read_scan(job)
    job.scan.path.touch()
    again = read_scan(Job(job.scan, first.fingerprint))
    assert isinstance(again, Unchanged)
    assert again.fingerprint.signature != first.fingerprint.signature


def test_warnings_are_kept_with_the_scan(tmp_path, caplog):
    (job,) = jobs_of(tmp_path / "luna", 1)
    points = tmp_path / "points.csv"
    points.write_text("SeriesInstanceUID,AnnotationID,CoordX,CoordY,CoordZ\nother,n,-20,25,-120\n")
    reading = read_scan(Job(type(job.scan)("a", job.scan.path, points)))
    assert "its one SeriesInstanceUID 'other' is not the CT's" in reading.warnings.scan[0]
    assert not caplog.records
