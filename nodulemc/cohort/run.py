"""A run over a cohort: what is to be done, doing it, and keeping the results."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nodulemc.cohort.fingerprint import Fingerprint, look_at
from nodulemc.cohort.identity import Identity
from nodulemc.cohort.reading import Failed, Job, Unchanged
from nodulemc.cohort.scan import Scan
from nodulemc.cohort.scoring import Outcome
from nodulemc.cohort.store import Plan, Record, Store, now, store_path, writing
from nodulemc.cohort.view import StoreContent, latest, read_stores, redone_since
from nodulemc.progress import progress

# Looking at files is waiting for the file system.
_LOOKING_THREADS = 16

Shard = tuple[int, int]


class Engine(Protocol):
    """What scores scans."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The outcome of each job, as they come; nothing is started where there is no job."""


@dataclass(frozen=True)
class Task:
    """What to do.

    Attributes:
        scans: the whole manifest's.
        manifest: its path, for the record.
        output: the cohort's folder.
        ensemble: what the engine scores with.
        shard: (i, n): every n-th scan from the i-th on; None: all scans.
        retry_failed: also do what has failed before.
    """

    scans: Sequence[Scan]
    manifest: Path
    output: Path
    ensemble: Identity
    shard: Shard | None = None
    retry_failed: bool = False

    def own_scans(self) -> list[Scan]:
        """Those of the shard."""
        if self.shard is None:
            return list(self.scans)
        number, shards = self.shard
        return list(self.scans[number - 1 :: shards])


def run_cohort(task: Task, engine: Engine) -> None:
    """Do what is left to do; each scan's outcome is kept before the next one's.

    Results of the same inputs, weights and precision stand, in whichever of the folder's stores they are.

    Raises:
        ConfigError: another run is at work on the same store, or the store cannot be used.
    """
    path = store_path(task.output, task.shard)
    with writing(path):
        contents = read_stores(task.output)
        records = (record for content in contents for record in content.records)
        known = latest(r for r in records if r.error is not None or r.is_of(task.ensemble))
        jobs, settled = _to_do(task, known)
        store = Store(path)
        try:
            _begin(store, task, jobs, [*settled, *_to_copy(contents, path, known, task, jobs)])
            for job, outcome in progress(engine.outcomes(jobs), len(jobs), "cohort", unit="scans"):
                store.record(_record(job, outcome, task.ensemble, known))
        finally:
            store.close()


def _to_do(task: Task, known: dict[str, Record]) -> tuple[list[Job], list[Record]]:
    """The scans to read, and the failures of those that the manifest spoils."""
    own = task.own_scans()
    faults = [Record(scan.name, Fingerprint(""), None, None, now(), scan.fault) for scan in own if scan.fault]
    sound = [scan for scan in own if scan.fault is None]
    jobs = [Job(scan) for scan in sound if scan.name not in known]
    again = [scan for scan in sound if scan.name in known]
    with ThreadPoolExecutor(_LOOKING_THREADS) as pool:
        for scan, look in zip(again, pool.map(look_at, again), strict=True):
            record = known[scan.name]
            if record.error is not None and (task.retry_failed or record.fingerprint.look != look):
                jobs.append(Job(scan))
            elif record.error is None and record.fingerprint.look != look:
                jobs.append(Job(scan, record.fingerprint))
    return jobs, faults


def _to_copy(
    contents: Sequence[StoreContent], path: Path, known: dict[str, Record], task: Task, jobs: Sequence[Job]
) -> list[Record]:
    """What stands, but is in another store, or was to be done again by a run that did not come to it."""
    ours = {record.scan: record for content in contents if content.path == path for record in content.records}
    since = redone_since(contents)
    todo = {job.scan.name for job in jobs}
    standing = [known[scan.name] for scan in task.own_scans() if scan.fault is None and scan.name not in todo]
    return [
        replace(record, finished=now())
        for record in standing
        if ours.get(record.scan) != record or record.finished < since.get(record.scan, 0)
    ]


def _begin(store: Store, task: Task, jobs: Sequence[Job], records: Sequence[Record]) -> None:
    todo = {job.scan.name for job in jobs}
    shard = None if task.shard is None else "{}/{}".format(*task.shard)
    plan = Plan(now(), str(task.manifest), shard, task.ensemble)
    store.begin(plan, task.scans, lambda position: task.scans[position].name in todo, records)


def _record(job: Job, outcome: Outcome, ensemble: Identity, known: dict[str, Record]) -> Record:
    name = job.scan.name
    if isinstance(outcome, Failed):
        return Record(name, outcome.fingerprint, None, None, now(), outcome.error)
    if isinstance(outcome, Unchanged):
        return replace(known[name], fingerprint=outcome.fingerprint, finished=now())
    return Record(
        name, outcome.read.fingerprint, ensemble.weights, ensemble.precision, now(), None, outcome.predictions
    )
