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
    """Restart this program in Python's UTF-8 mode if the locale has another encoding for the names of files.

    ITK takes and returns only UTF-8, and points may have names that the locale's encoding lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    # The output keeps the terminal's encoding.
    encoding = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"} if sys.stdout else {}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], encoding | os.environ)  # noqa: S606


def exit_code_of(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code. Warnings and a user's error are one line each on stderr.

    Raises:
        SystemExit: ``work()`` raised it, or standard output cannot be written.
    """
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, handlers=[_Warnings()])
    if sys.stdout is None:  # closed by the program's caller
        return _report_errors(work)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr; not every locale has every name's letters
    stdout = _Stdout(sys.stdout)
    with redirect_stdout(stdout):
        try:
            return _report_errors(work)
        finally:
            stdout.flush()


class _Warnings(logging.StreamHandler):  # type: ignore[type-arg]  # in Python 3.10 the class takes no arguments
    """Warnings on stderr, each on its own line."""

    def emit(self, record: logging.LogRecord) -> None:
        clear_bars()
        super().emit(record)


class _Stdout:
    """Standard output that ends the program if it cannot be written. Other errors of the system remain bugs."""

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
            # Python flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `| head -1`
                sys.exit(128 + signal.SIGPIPE)
            problem = CaseError(
                f"cannot write ({error.strerror})", "standard output", "give it a file that is not full"
            )
            _print_stderr(f"error: {problem}")
            sys.exit(problem.exit_code)


def _report_errors(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code. A user's error or interrupt is one line on stderr."""
    with _noted_interrupts() as interrupts:
        try:
            return _map_out_of_memory(work)
        except (Exception, KeyboardInterrupt) as error:
            # A library may have been interrupted during its import and have turned the interrupt into another error.
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
    """End everything that failed work holds, such as processes, so that the error's line stays the last on stderr."""
    with suppress(KeyboardInterrupt):
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Collect the interrupts during the block. Each still raises KeyboardInterrupt."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    # A job in the background ignores interrupts, and only the main thread may handle them.
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
    """Print a line on stderr. The exit code is right even if nobody can read the line."""
    with suppress(OSError):
        clear_bars()
        print(line, file=sys.stderr)


def _map_out_of_memory(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code. A lack of memory or of an extra becomes a user's error."""
    try:
        return work() or 0
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if out_of_memory(error):
            raise ResourceError("out of memory", "this machine", "give the process more memory") from error
        missing = missing_extra(error) if isinstance(error, ImportError) else None
        if missing is None:
            raise
        raise missing from error
