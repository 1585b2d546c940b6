"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")
_BAR_WIDTH = 30
_BAR_PERIOD_S = 0.1


def progress(
    iterable: Iterable[Item], total: int, label: str, stream: TextIO | None = None, *, unit: str | None = None
) -> Iterator[Item]:
    """Yield the items, showing how many of ``total`` are done and the time left.

    Args:
        iterable: the work, done one item at a time.
        total: how many items there will be.
        label: what is being done.
        stream: where to show it (default: stderr). On a terminal one line is redrawn; elsewhere a line is
            written at each tenth of the work.
        unit: what the items are; where it is given, the speed is shown in it.
    """
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    start = drawn = time.monotonic()
    done = 0
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        left = clock((now - start) / done * (total - done))
        speed = f"{done / max(now - start, 1e-9):.2f} {unit}/s, " if unit else ""
        if on_terminal and (now - drawn >= _BAR_PERIOD_S or done == total):
            filled = "#" * (_BAR_WIDTH * done // max(total, 1))
            stream.write(f"\r\033[K{label} [{filled:<{_BAR_WIDTH}}] {done}/{total}, {speed}{left} left")
            stream.flush()
            drawn = now
        elif not on_terminal and (10 * done // total > 10 * (done - 1) // total):
            stream.write(f"{label}: {done}/{total}, {clock(now - start)} passed, {speed}{left} left\n")
            stream.flush()
    if on_terminal and done:
        stream.write("\n")


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
