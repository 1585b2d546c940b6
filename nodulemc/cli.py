"""The ``nodulemc`` command: finds the subcommand's module, parses its arguments, maps errors to exit codes."""

import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from types import FrameType
from typing import Any, TextIO

from nodulemc import __version__
from nodulemc.errors import CaseError, NoduleMCError, ResourceError, out_of_memory
from nodulemc.usage import Parser
from nodulemc.util.extras import missing_extra
from nodulemc.util.progress import clear_bars

# name: one line for `nodulemc --help`. Each command lives in nodulemc/commands/<name>.py (dashes become
# underscores), with `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int | None`; only the chosen one
# is imported.
COMMANDS = {
    "predict": "malignancy probabilities for nodules in one CT",
    "import-reference": "turn public baseline or MClab checkpoints into an ensemble folder",
    "prepare": "CTs, table and masks to a block store for training",
    "split": "training and validation samples, or folds, by patient",
    "train": "train seeds from a block store and export them as an ensemble",
    "phantom": "procedural chest CTs with nodules of known malignancy probability",
    "evaluate": "metrics with confidence intervals and a report",
    "compare": "test whether two sets of predictions differ in AUC",
    "calibrate": "fit a calibration map and store it in an ensemble",
    "cohort": "score many scans, resumable, on one machine or a cluster",
    "status": "how far a cohort is",
    "export": "a cohort's results as CSV, Parquet and platform JSON",
    "serve": "a web server that keeps the ensemble loaded between cases",
    "bench": "how fast an ensemble runs on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (0 done, 2 bad input or usage, 130 interrupted)."""
    if argv is None:
        use_utf8()
    return exit_code_of(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale has another encoding for the names of files.

    ITK takes and gives UTF-8 only, and points may have names that the locale's encoding lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    # What is shown keeps the encoding that the terminal has.
    encoding = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"} if sys.stdout else {}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], encoding | os.environ)  # noqa: S606


def _run(argv: Sequence[str]) -> int | None:
    parser = Parser("nodulemc", "Lung nodule malignancy from chest CT.")
    parser.add_argument("--version", action="version", version=f"nodulemc {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    chosen = next((place for place, word in enumerate(argv, start=1) if not word.startswith("-")), len(argv))
    args = parser.parse_args(argv[:chosen])
    module = import_module(f"nodulemc.commands.{args.command.replace('-', '_')}")
    command = Parser(f"nodulemc {args.command}", module.__doc__, epilog=f"example:\n  {module.EXAMPLE}")
    module.add_arguments(command)
    return module.run(command.parse_args(argv[chosen:], args))


def exit_code_of(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; warnings and a user's error are one line each on stderr.

    Raises:
        SystemExit: of ``work()``, or because standard output cannot be written.
    """
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, handlers=[_Warnings()])
    if sys.stdout is None:  # closed by whoever started the program
        return _told(work)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every locale has every name's letters
    stdout = _Stdout(sys.stdout)
    with redirect_stdout(stdout):
        try:
            return _told(work)
        finally:
            stdout.flush()


class _Warnings(logging.StreamHandler):
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

    def _or_end(self, act: Callable[[], Any]) -> Any:
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
            _say(f"error: {problem}")
            sys.exit(problem.exit_code)


def _told(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; a user's error or interrupt is one line on stderr."""
    with _noted_interrupts() as interrupts:
        try:
            return _explained(work)
        except (Exception, KeyboardInterrupt) as error:
            # A library that was being imported may have made some other error of it.
            interrupted = interrupts or isinstance(error, KeyboardInterrupt)
            if not interrupted and not isinstance(error, NoduleMCError):
                raise
            _let_go(error)
            _say("interrupted" if interrupted else f"error: {error}")
            return 130 if interrupted else error.exit_code


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


def _say(line: str) -> None:
    """A line on stderr; the exit code is right even where nobody can read it."""
    with suppress(OSError):
        clear_bars()
        print(line, file=sys.stderr)


def _explained(work: Callable[[], int | None]) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
