"""The common frame of all programs of this package: exit codes, errors in one line, interrupts, encodings."""

import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType
from typing import Any, TextIO, TypeVar

from nodulemc.errors import CaseError, NoduleMCError, ResourceError, out_of_memory
from nodulemc.util.extras import missing_extra
from nodulemc.util.progress import clear_bars

Result = TypeVar("Result")


def use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale has another encoding for the names of files.

    ITK takes and gives UTF-8 only, and points may have names that the locale's encoding lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    # What is shown keeps the encoding that the terminal has.
    encoding = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"} if sys.stdout else {}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], encoding | os.environ)  # noqa: S606


def exit_code_of(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; warnings and a user's error are one line each on stderr.

    Raises:
        SystemExit: of ``work()``, or because standard output cannot be written.
    """
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, handlers=[_Warnings()])
    if sys.stdout is None:  # closed by whoever started the program
        return _report_errors(work)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every locale has every name's letters
    stdout = _Stdout(sys.stdout)
    with redirect_stdout(stdout):
        try:
            return _report_errors(work)
        finally:
            stdout.flush()


class _Warnings(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10's takes no arguments
    """Warnings on stderr, each on its own line."""

    def emit(self, record: logging.LogRecord) -> None:
        clear_bars()
        super().emit(record)


class _Stdout:
    """Standard output that ends the program where it cannot be written: any other error of the system is a bug."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._or_end(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._or_end(self._stream.flush)

    def _or_end(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except OSError as error:
            # Python flushes once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `| head -1`
                sys.exit(128 + signal.SIGPIPE)
            problem = CaseError(
                f"cannot write ({error.strerror})", "standard output", "give it a file that is not full"
            )
            _print_stderr(f"error: {problem}")
            sys.exit(problem.exit_code)


def _report_errors(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; a user's error or interrupt is one line on stderr."""
    with _noted_interrupts() as interrupts:
        try:
            return _map_out_of_memory(work)
        except (Exception, KeyboardInterrupt) as error:
            # A library that was being imported may have made some other error of it.
            if interrupts or isinstance(error, KeyboardInterrupt):
                said, code = "interrupted", 130
            elif isinstance(error, NoduleMCError):
                said, code = f"error: {error}", error.exit_code
            else:
                raise
            _let_go(error)
            _print_stderr(said)
            return code


def _let_go(error: BaseException | None) -> None:
    """End what failed work still holds, such as processes: they may write to stderr, whose last line is the error's."""
    with suppress(KeyboardInterrupt):
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Collect the interrupts of the meantime; each raises KeyboardInterrupt as ever."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    # A job in the background ignores them, and no other thread may handle them.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = ours and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _print_stderr(line: str) -> None:
    """A line on stderr; the exit code is right even where nobody can read it."""
    with suppress(OSError):
        clear_bars()
        print(line, file=sys.stderr)


def _map_out_of_memory(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; a lack of memory or of an extra becomes a user's error."""
    try:
        return work() or 0
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if out_of_memory(error):
            raise ResourceError("out of memory", "this machine", "give the process more memory") from error
        missing = missing_extra(error) if isinstance(error, ImportError) else None
        if missing is None:
            raise
        raise missing from error
