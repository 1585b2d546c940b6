"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TextIO, TypeVar

Item = TypeVar("Item")
QUIET_S = 2.0  # shorter work needs no progress
_BAR_WIDTH = 30
_BAR_PERIOD_S = 0.1
_bars: list[TextIO] = []  # the terminals whose last line is an unfinished bar


def progress(
    iterable: Iterable[Item],
    total: int,
    label: str,
    stream: TextIO | None = None,
    *,
    unit: str | None = None,
    quiet_s: float = 0.0,
) -> Iterator[Item]:
    """Yield the items, and show how many of ``total`` are done and the time left.

    Args:
        iterable: The work, done one item at a time.
        total: The number of items.
        label: A name for the work.
        stream: The stream to show it on (default: stderr). On a terminal one line is redrawn. Elsewhere a line is
            written at each tenth of the work.
        unit: The unit of the items. If given, the speed is shown in it.
        quiet_s: Nothing is shown for this many seconds.
    """
    stream = stream or sys.stderr
    if stream is None:  # closed by the program's caller
        yield from iterable
        return
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
                _show(stream, f"{label}: {done}/{total}, {clock(now - start)} passed, {speed}{left} left\n")
    finally:
        if stream in _bars:
            _bars.remove(stream)
            _show(stream, "\n")


def clear_bars() -> None:
    """Remove unfinished bars, so that the next text on a terminal has its own line."""
    while _bars:
        _show(_bars.pop(), "\r\033[K")


def _draw(stream: TextIO, label: str, done: int, total: int, rest: str) -> None:
    filled = "#" * (_BAR_WIDTH * done // max(total, 1))
    _show(stream, f"\r\033[K{label} [{filled:<{_BAR_WIDTH}}] {done}/{total}{rest}")
    if stream not in _bars:
        _bars.append(stream)


def _show(stream: TextIO, text: str) -> None:
    """Write at once. The work goes on even if nobody can read it."""
    with suppress(OSError):
        stream.write(text)
        stream.flush()


def clock(seconds: float) -> str:
    """Return seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
