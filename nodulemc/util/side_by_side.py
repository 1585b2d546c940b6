"""Reading a case while the ensemble is loaded: each keeps one core busy."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Read = TypeVar("Read")
Loaded = TypeVar("Loaded")


def side_by_side(read: Callable[[], Read], load: Callable[[], Loaded]) -> tuple[Read, Loaded]:
    """Results of both, ``read`` running in a second thread; where both fail, the exception of ``read`` is raised."""
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            loaded = load()
        except Exception:
            reading.result()
            raise
        return reading.result(), loaded
