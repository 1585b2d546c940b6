import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from nodulemc.util.progress import clear_bars, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_through_with_ten_plain_lines():
    log = io.StringIO()
    assert list(progress(range(50), 50, "scans", log)) == list(range(50))
    lines = log.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("scans: 5/50")
    assert lines[-1].startswith("scans: 50/50")
    assert "\r" not in log.getvalue()


def test_terminal_gets_one_line():
    log = Terminal()
    list(progress(iter("abc"), 3, "scans", log))
    assert log.getvalue().count("\n") == 1
    assert "3/3" in log.getvalue()


def test_nothing_to_do():
    log = io.StringIO()
    assert list(progress([], 0, "scans", log)) == []
    assert log.getvalue() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_work_goes_on_where_nobody_can_read_of_it(redirection):
    code = "from nodulemc.util.progress import progress; print(sum(progress(range(20), 20, 'work')))"
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code], capture_output=True)
    assert done.stdout == b"190\n"


def test_what_is_quick_shows_nothing():
    for log in (io.StringIO(), Terminal()):
        assert list(progress(range(50), 50, "scans", log, quiet_s=60)) == list(range(50))
        assert log.getvalue() == ""


def test_what_takes_longer_shows_the_rest():
    def slow():
        yield from (1, 2)
        clock[0] += 3
        yield 3

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: clock[0])
        for log, shown in (
            (io.StringIO(), "scans: 3/3, 0:00:03 passed, 0:00:00 left\n"),
            (Terminal(), " 3/3, 0:00:00 left\n"),
        ):
            clock[0] = 0.0
            list(progress(slow(), 3, "scans", log, quiet_s=2))
            assert log.getvalue().endswith(shown)
            assert log.getvalue().count("/3") == 1


def test_a_bar_is_there_before_the_first_item():
    log = Terminal()
    work = progress(iter("abc"), 3, "scans", log)
    next(work)
    assert log.getvalue().endswith("] 0/3")
    work.close()
    assert log.getvalue().endswith("] 0/3\n")
    clear_bars()
    assert log.getvalue().endswith("] 0/3\n")


def test_other_lines_take_the_bars_place():
    log = Terminal()
    for _ in progress(iter("ab"), 2, "scans", log):
        clear_bars()
        log.write("warning: x\n")
    *_, last = log.getvalue().split("\r\033[K")
    assert last.startswith("scans [")
    assert "2/2" in last
    assert log.getvalue().count("\r\033[Kwarning: x\n") == 2


def on_terminal(code: str) -> tuple[int, str]:
    """Exit code of a Python program on a terminal of its own, and what that shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


@pytest.mark.parametrize(
    ("step", "code", "last"),
    [
        ("raise CaseError('bad', 'here', 'repair it')", 2, "error: bad: here: repair it"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("logging.getLogger('x').warning('careful')", 0, "work [##############################] 3/3, 0:00:00 left"),
    ],
)
def test_each_message_has_a_line_of_its_own_on_a_terminal(step, code, last):
    program = f"""
import logging, sys
from nodulemc.program import exit_code_of
from nodulemc.errors import CaseError
from nodulemc.util.progress import progress
def work():
    for _ in progress(range(3), 3, "work"):
        {step}
sys.exit(exit_code_of(work))"""
    ended, shown = on_terminal(program)
    assert ended == code
    lines = shown.splitlines()
    assert lines[-1].split("\033[K")[-1] == last
    assert shown.count("\033[Kwarning: careful\r\n") == (3 if code == 0 else 0)
