"""Reading processes on this machine, working ahead of the network by a bounded number of scans."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import SimpleITK as sitk

from nodulemc.cohort.fingerprint import Fingerprint, stat_signature
from nodulemc.cohort.read_scan import Failed, Job, Read, Reading
from nodulemc.errors import ResourceError

# Scans read or being read, for each process, that nobody has taken yet.
_AHEAD = 3
_ATTEMPTS = 2
# The network waits at each layer for its slowest thread; readers live on the time that it leaves.
_NICE = 19

Result = tuple[Job, Reading]


class Readers:
    """Processes that read scans, one scan at a time each.

    If a process dies, only its scan is lost, and is tried once more in a new process. Use this as a context manager;
    leaving it kills the processes.
    """

    def __init__(self, work: Callable[[Job], Reading], jobs: Iterable[Job], workers: int) -> None:
        """Start reading.

        Args:
            work: A function at the top level of a module.
            jobs: The jobs, taken as needed.
            workers: The number of processes.
        """
        self._work = work
        self._jobs = iter(jobs)
        self._taking = threading.Lock()
        self._slots = threading.Semaphore(_AHEAD * workers)
        self._results: queue.SimpleQueue[Result | Exception | None] = queue.SimpleQueue()
        self._closed = False
        self._processes: list[_Process | None] = [None] * workers
        resource_tracker.ensure_running()  # started by the first process otherwise, it would unblock SIGINT there
        for lane in range(workers):
            threading.Thread(target=self._serve, args=(lane,), daemon=True).start()

    def __enter__(self) -> "Readers":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for process in self._processes:
            if process is not None:
                process.kill()

    def batches(self, nodules: int) -> Iterator[list[Result]]:
        """Yield all results, each once, as they come, in batches of up to about ``nodules`` nodules.

        Raises:
            ResourceError: processes cannot be started.
            Exception: whatever taking the next job has raised.
        """
        lanes = len(self._processes)
        while lanes:
            batch: list[Result] = []
            size = 0
            while lanes and (not batch or size < nodules):
                try:
                    result = self._results.get(block=not batch)
                except queue.Empty:
                    break
                if result is None:
                    lanes -= 1
                elif isinstance(result, Exception):
                    raise result
                else:
                    self._slots.release()
                    batch.append(result)
                    size += len(result[1].nodules) if isinstance(result[1], Read) else 0
            if batch:
                yield batch

    def _serve(self, lane: int) -> None:
        """One lane: a thread that keeps one process busy."""
        # Processes inherit it: a terminal's Ctrl-C reaches them, too, and is the main process's to handle.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            while not self._closed:
                self._slots.acquire()
                with self._taking:
                    job = next(self._jobs, None)
                if job is None:
                    break
                reading = self._read(lane, job)
                if not self._closed:
                    self._results.put((job, reading))
        except Exception as error:
            self._results.put(error)
        process = self._processes[lane]
        if process is not None:
            process.kill()
        self._results.put(None)

    def _read(self, lane: int, job: Job) -> Reading:
        status = None
        for _ in range(_ATTEMPTS):
            process = self._processes[lane]
            if process is None:
                process = self._processes[lane] = _Process(self._work)
                if self._closed:  # __exit__ has not seen this one
                    process.kill()
            try:
                return process.read(job)
            except (EOFError, OSError):
                status = process.end()
                self._processes[lane] = None
            if self._closed:
                break
        return died(job, f"the reading process died {_ATTEMPTS} times ({_in_words(status)})")


class _Process:
    def __init__(self, work: Callable[[Job], Reading]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # A daemon is ended with this process; where that was killed, the broken pipe ends it.
        self._process = context.Process(target=_answer, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._pipe.recv()  # its sign that it has started; what goes wrong before is no scan's fault
        except (EOFError, OSError) as error:
            what = f"a reading process does not start ({_in_words(self.end())})"
            raise ResourceError(what, "this machine", "see the messages above; memory may be short") from error

    def read(self, job: Job) -> Reading:
        self._pipe.send(job)
        reading: Reading = self._pipe.recv()
        return reading

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int | None:
        """Wait for the end; returns the exit status."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _answer(work: Callable[[Job], Reading], pipe: Connection) -> None:
    """Do the process's work, on one core, as long as the other end of the pipe is open."""
    os.nice(_NICE)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        pipe.send(None)
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, OSError):
        pass


def died(job: Job, what: str) -> Failed:
    """Return the outcome of a scan that its reading process did not survive."""
    error = ResourceError(what, job.scan.path, "memory may be short: use fewer --workers, then --retry-failed")
    return Failed(Fingerprint(stat_signature(job.scan)), error)


def _in_words(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
