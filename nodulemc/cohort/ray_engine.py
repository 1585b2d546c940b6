"""Scoring on a Ray cluster: tasks anywhere read scans, and one actor per GPU, or per node without GPUs, scores them.

A scan's patches and pictures stay in Ray's object store until an actor has used them. This process gets only results,
and writes the pages. Ray restarts lost tasks and actors. All nodes need the same NoduleMC, and scans and ensemble under
the same paths.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import SimpleITK as sitk
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nodulemc.cohort.read_scan import Failed, Job, Read, Reading, read_scan
from nodulemc.cohort.reader_processes import died
from nodulemc.cohort.scoring import GPU_BATCH, Outcome, Scored, Scorer, score_together
from nodulemc.errors import ConfigError, NoduleMCError, ResourceError

_RETRIES = 3
_PATIENCE_S = 10
# The number of batches at each actor, so that it never waits for this process.
_AT_ACTOR = 2
_NO_PATCHES = np.empty(0, np.float32)


class RayEngine:
    """Scores scans on a Ray cluster.

    Attributes:
        device: The device of the cluster's actors.
        precision: The number format that they compute in.
    """

    def __init__(
        self, load: Callable[..., Scorer], *, device: str = "auto", precision: str = "auto", address: str | None = None
    ) -> None:
        """Connect, and load the ensemble on the first actor that the cluster gives.

        Args:
            load: A function that actors call with the keywords ``device`` and ``precision``.
            device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".
            precision: As for ``Ensemble.load``. With "auto", the first actor chooses for all.
            address: The address of a running cluster. None stands for $RAY_ADDRESS, or else for a cluster of this
                machine alone.

        Raises:
            ConfigError: there is no such cluster, or it has no GPU and one is asked for.
            EnsembleError: the ensemble cannot be loaded.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports to nobody
        address = address or os.environ.get("RAY_ADDRESS")
        try:
            _check_reachable(address)
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster ({error})", f"--address {address}", "see `ray status`") from error
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if device == "cuda" and not gpus:
            raise ConfigError("the Ray cluster has no GPU", "--device cuda", "use --device auto or cpu")
        self.device = "cuda" if gpus and device != "cpu" else "cpu"
        self._batch = GPU_BATCH if self.device == "cuda" else 1
        model: Any = _Model  # Ray's decorator has made an actor class of it, which mypy does not see
        self._actors = [model.options(**place).remote(load, self.device) for place in _places(gpus, self.device)]
        # Others may be using some of the GPUs.
        starting = {actor.is_there.remote(): actor for actor in self._actors}
        first = starting[ray.wait(list(starting))[0][0]]
        try:
            self.precision = ray.get(first.loaded_precision.remote(precision))
        except RayTaskError as error:
            raise _cause(error) from None

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job, as soon as it is there."""
        return _Flow(jobs, self._actors, self.precision, self._batch).outcomes()

    def close(self) -> None:
        """Leave the cluster, which ends this run's tasks and actors."""
        ray.shutdown()


@dataclass(frozen=True)
class _Ready:
    """A scan that was read; its large parts are still in the object store."""

    job: Job
    small: Read
    whole: "ray.ObjectRef[Read | None]"


class _Flow:
    """Turns jobs into outcomes, with a bounded number of scans in progress."""

    def __init__(self, jobs: Sequence[Job], actors: Sequence[Any], precision: str, batch: int) -> None:
        self._jobs = deque(jobs)
        self._precision = precision
        self._batch = batch
        self._free = deque(actor for _ in range(_AT_ACTOR) for actor in actors)
        self._most_ready = 2 * batch * len(self._free)
        self._reading: dict[ray.ObjectRef[Reading], tuple[Job, ray.ObjectRef[Read | None]]] = {}
        self._ready: deque[_Ready] = deque()
        self._scoring: dict[ray.ObjectRef[list[Scored]], tuple[Any, list[_Ready]]] = {}

    def outcomes(self) -> Iterator[Outcome]:
        while self._jobs or self._reading or self._ready or self._scoring:
            self._read_more()
            self._score_more()
            for done in ray.wait([*self._reading, *self._scoring])[0]:
                yield from self._was_read(done) if done in self._reading else self._was_scored(done)

    def _read_more(self) -> None:
        most_reading = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while self._jobs and len(self._reading) < most_reading and len(self._ready) < self._most_ready:
            job = self._jobs.popleft()
            both: Any = _read.remote(job)  # Ray's types take a task with two results for one with a tuple
            reading, whole = both
            self._reading[reading] = job, whole

    def _score_more(self) -> None:
        while self._ready and self._free:
            batch: list[_Ready] = []
            while self._ready and sum(len(item.small.nodules) for item in batch) < self._batch:
                batch.append(self._ready.popleft())
            actor = self._free.popleft()
            call = actor.score.remote(self._precision, *(item.whole for item in batch))
            self._scoring[call] = actor, batch

    def _was_read(self, done: "ray.ObjectRef[Reading]") -> Iterator[Outcome]:
        job, whole = self._reading.pop(done)
        try:
            reading: Reading = ray.get(done)
        except RayTaskError as error:  # reading itself never raises: the node is at fault, not the scan
            raise _cause(error) from None
        except RayError as error:
            reading = died(job, f"its reading task died {_RETRIES + 1} times ({type(error).__name__})")
        if isinstance(reading, Read):
            self._ready.append(_Ready(job, reading, whole))
        else:
            yield job, reading

    def _was_scored(self, done: "ray.ObjectRef[list[Scored]]") -> Iterator[Outcome]:
        actor, batch = self._scoring.pop(done)
        try:
            scored = ray.get(done)
        except RayActorError as error:  # for good: the others take over
            self._free = deque(other for other in self._free if other is not actor)
            self._ready.extendleft(reversed(batch))
            if not self._free and not self._scoring:
                raise ResourceError(
                    f"the last of the cluster's model actors has died ({type(error).__name__})",
                    "--engine ray",
                    "see `ray status` and run again",
                ) from error
            return
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError as error:
            self._free.append(actor)
            for item in batch:
                lost = ResourceError(f"its patches were lost ({error})", item.job.scan.path, "use --retry-failed")
                yield item.job, Failed(item.small.fingerprint, lost)
            return
        self._free.append(actor)
        yield from ((item.job, one) for item, one in zip(batch, scored, strict=True))


@ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)
def _read(job: Job) -> tuple[Reading, Read | None]:
    """Read one scan; return its small parts, and the whole of it, which goes directly to an actor."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reading = read_scan(job)
    if isinstance(reading, Read):
        return replace(reading, patches=_NO_PATCHES, parts=(), views=()), reading
    return reading, None


@ray.remote(max_restarts=_RETRIES, max_task_retries=_RETRIES)
class _Model:
    """The ensemble on one GPU or node; it loads itself again after a restart."""

    def __init__(self, load: Callable[..., Scorer], device: str) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's: one thread
        self._load = load
        self._device = device
        self._scorer: Scorer | None = None

    def is_there(self) -> None:
        """Return when the cluster has given the actor its place."""

    def loaded_precision(self, precision: str) -> str:
        return self._loaded(precision).precision

    def score(self, precision: str, *reads: Read) -> list[Scored]:
        """Score scans; the results keep what pages need, but not patches and parts."""
        scored = score_together(reads, self._loaded(precision))
        return [replace(one, read=replace(one.read, patches=_NO_PATCHES, parts=())) for one in scored]

    def _loaded(self, precision: str) -> Scorer:
        if self._scorer is None:
            self._scorer = self._load(device=self._device, precision=precision)
        return self._scorer


def _cause(error: RayTaskError) -> Exception:
    """Return a user's error as raised on the node, and any other error with Ray's own traceback."""
    return error.cause if isinstance(error.cause, NoduleMCError) else error


def _check_reachable(address: str | None) -> None:
    """Raise OSError if nobody listens. Ray would keep trying for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _PATIENCE_S).close()


def _places(gpus: int, device: str) -> list[dict[str, Any]]:
    """Return the places for actors: each GPU, or each node with CPUs for work."""
    if device == "cuda":
        return [{"num_gpus": 1, "num_cpus": 0}] * gpus
    # An actor asks for no CPU: on a node with one, no reader would ever run beside it.
    return [
        {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)}
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0
    ]
