import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodulemc.errors import CaseError
from nodulemc.program import exit_code_of


def test_a_users_error_is_one_line_and_exit_code_2(capsys):
    def fail():
        raise CaseError("two\nlines", "here", "do this")

    assert exit_code_of(fail) == 2
    assert capsys.readouterr().err == "error: two lines: here: do this\n"


def test_what_failed_work_leaves_unfinished_is_told_before_the_error(capsys):
    def unfinished():
        try:
            yield
        finally:
            print("a worker ends", file=sys.stderr)

    def work(error):
        held = unfinished()
        next(held)
        try:
            next(iter(()))
        except StopIteration:
            raise error from None

    assert exit_code_of(lambda: work(CaseError("bad", "here", "do this"))) == 2
    assert exit_code_of(lambda: work(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "a worker ends\nerror: bad: here: do this\na worker ends\ninterrupted\n"


@pytest.mark.heavy
def test_the_error_is_the_last_line_behind_processes_and_threads(tmp_path):
    """Processes still work, and threads fail, when the error comes."""
    program = tmp_path / "program.py"
    program.write_text("""
import logging, sys, threading, time
from nodulemc.program import exit_code_of
from nodulemc.errors import CaseError
from nodulemc.util.worker_pool import in_order
def fail(item):
    time.sleep(0.2 * item)
    if item == 1:
        raise CaseError("bad", "item 1", "leave it out")
    print("a process says something", file=sys.stderr)
def work():
    threading.Thread(target=lambda: 1 / 0).start()
    logging.getLogger("nodulemc").warning("careful")
    list(in_order(fail, range(4), 2))
if __name__ == "__main__":
    sys.exit(exit_code_of(work))""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: bad: item 1: leave it out"
    assert "a process says something" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 / 0)


def test_interruption_is_no_traceback(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert exit_code_of(interrupt) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_that_a_library_makes_an_error_of_its_own(capsys):
    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    assert exit_code_of(work) == 130
    assert signal.signal(signal.SIGINT, handler) is signal.default_int_handler
    assert capsys.readouterr().err == "interrupted\n"


def printing(what: str, stdout, **environment) -> subprocess.CompletedProcess:
    """A program that prints the value of an expression, through ``exit_code_of``."""
    code = f"import sys; from nodulemc.program import exit_code_of; sys.exit(exit_code_of(lambda: print({what})))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


@pytest.mark.parametrize("length", [1, 100_000])  # fails when it is flushed, and at once
def test_a_reader_that_has_gone_ends_the_program_quietly(length):
    reader, writer = os.pipe()
    os.close(reader)
    done = printing(f"'x' * {length}", writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("length", [1, 100_000])
def test_a_full_disk_behind_stdout_is_told_in_one_line(length):
    with Path("/dev/full").open("w") as full:
        done = printing(f"'x' * {length}", full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write (No space left on device): standard output: ")
    assert done.stderr.count("\n") == 1


def test_letters_that_the_locale_lacks_are_escaped():
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    done = printing(r"'\u0416'", subprocess.PIPE, **plain)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u0416\n", "")
