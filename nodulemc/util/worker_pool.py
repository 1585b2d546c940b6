"""Work spread over processes, with the results in order."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TypeVar

import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from nodulemc.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Process(SpawnProcess):
    """A process without SIGINT. A terminal's Ctrl-C reaches it, too, but only the main process handles it."""

    def start(self) -> None:
        resource_tracker.ensure_running()  # otherwise the first process starts it, and it unblocks SIGINT there
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Spawn(SpawnContext):
    Process = _Process


SPAWN = _Spawn()
# A lock in each worker, held while it works on no item. So it cannot end while it sends a result: the pool would wait
# for ever for the rest of the result.
_between_items = threading.Lock()


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in the items' order.

    At most two items per worker are in progress or waiting to be taken, so memory stays bounded. An exception in a
    worker is raised here, in its item's turn. If this generator ends early, the items in progress are given up.

    Args:
        work: A function of a module. With one worker it runs in this process.
        items: The items to work on.
        workers: The number of processes.

    Raises:
        ConfigError: a worker process was killed.
    """
    if workers == 1:
        yield from map(work, items)
        return
    theirs, ours = SPAWN.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, SPAWN, _start_worker, (theirs,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_work_on, work, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ConfigError(
            "a worker process was killed", f"--workers {workers}", "memory may be short; use fewer and run again"
        ) from error
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _work_on(work: Callable[[Item], Result], item: Item) -> Result:
    _between_items.release()
    try:
        return work(item)
    finally:
        _between_items.acquire()


def _start_worker(wanted: Connection) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # each worker has one core
    threadpool_limits(1)
    _between_items.acquire()
    threading.Thread(target=_end_amid_work, args=(wanted,), daemon=True).start()
    # Otherwise the workers of a killed process would wait for work for ever.
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _end_amid_work(wanted: Connection) -> None:
    """End this process as soon as the pipe is closed and an item is in progress: nobody wants its result any more."""
    multiprocessing.connection.wait([wanted])
    _between_items.acquire()
    os._exit(1)
