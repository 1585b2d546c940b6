"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")
QUIET_S = 2.0  # what takes no longer needs no progress
_BAR_WIDTH = 30
_BAR_PERIOD_S = 0.1
_bars: list[TextIO] = []  # terminals whose last line is an unfinished bar


def progress(
    iterable: Iterable[Item],
    total: int,
    label: str,
    stream: TextIO | None = None,
    *,
    unit: str | None = None,
    quiet_s: float = 0.0,
) -> Iterator[Item]:
    """Yield the items, showing how many of ``total`` are done and the time left.

    Args:
        iterable: the work, done one item at a time.
        total: how many items there will be.
        label: what is being done.
        stream: where to show it (default: stderr). On a terminal one line is redrawn; elsewhere a line is
            written at each tenth of the work.
        unit: what the items are; where it is given, the speed is shown in it.
        quiet_s: for so many seconds nothing is shown.
    """
    stream = stream or sys.stderr
    on_terminal = stream.isatty()
    start = drawn = time.monotonic()
    if on_terminal and total and not quiet_s:
        _draw(stream, label, 0, total, "")
    try:
        for done, item in enumerate(iterable, start=1):
            yield item
            now = time.monotonic()
            if now - start < quiet_s:
                continue
            left = clock((now - start) / done * (total - done))
            speed = f"{done / max(now - start, 1e-9):.2f} {unit}/s, " if unit else ""
            if on_terminal and (now - drawn >= _BAR_PERIOD_S or done == total or stream not in _bars):
                _draw(stream, label, done, total, f", {speed}{left} left")
                drawn = now
            elif not on_terminal and (10 * done // total > 10 * (done - 1) // total):
                stream.write(f"{label}: {done}/{total}, {clock(now - start)} passed, {speed}{left} left\n")
                stream.flush()
    finally:
        if stream in _bars:
            _bars.remove(stream)
            stream.write("\n")
            stream.flush()


def clear_bars() -> None:
    """Remove unfinished bars, so that what is written to a terminal next has its line for itself."""
    while _bars:
        stream = _bars.pop()
        stream.write("\r\033[K")
        stream.flush()


def _draw(stream: TextIO, label: str, done: int, total: int, rest: str) -> None:
    filled = "#" * (_BAR_WIDTH * done // max(total, 1))
    stream.write(f"\r\033[K{label} [{filled:<{_BAR_WIDTH}}] {done}/{total}{rest}")
    stream.flush()
    if stream not in _bars:
        _bars.append(stream)


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
