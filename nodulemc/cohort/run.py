"""A run over a cohort: it finds the scans to do, does them, and stores the results."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nodulemc.cohort.fingerprint import stat_signature
from nodulemc.cohort.read_scan import Failed, Job, Unchanged
from nodulemc.cohort.results_db import Listed, Plan, Record, ResultsDb, db_path, now
from nodulemc.cohort.scoring import Outcome, Scored
from nodulemc.cohort.state import DbContent, by_scan, read_dbs
from nodulemc.util.locks import writing
from nodulemc.util.progress import QUIET_S, progress

if TYPE_CHECKING:
    from nodulemc.cohort.clinical import Clinical
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.pages import Pages
    from nodulemc.cohort.scan import Scan
    from nodulemc.ct.scan_ids import ScanIds
    from nodulemc.ensemble.trained_cases import TrainedCases

logger = logging.getLogger(__name__)

# Looking at files is waiting for the file system.
_STAT_THREADS = 16

Shard = tuple[int, int]


class Engine(Protocol):
    """An engine that scores scans."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job, as soon as it is there; without a job nothing is started."""


@dataclass(frozen=True)
class Task:
    """The task of a run.

    Attributes:
        scans: All scans of the manifest.
        manifest: The manifest's path, for the record.
        output: The cohort's folder.
        ensemble: The engine's ensemble.
        shard: (i, n) for every n-th scan from the i-th on. None for all scans.
        retry_failed: Whether to try failed scans again.
        trained_cases: The ensemble's training cases. None if they are not known.
        pages: The pages for scans with a result. None if none are wanted.
        clinical: The clinical values about each scan, by its name. None if risk is not asked for.
    """

    scans: Sequence[Scan]
    manifest: Path
    output: Path
    ensemble: Identity
    shard: Shard | None = None
    retry_failed: bool = False
    trained_cases: TrainedCases | None = None
    pages: Pages | None = None
    clinical: Mapping[str, Clinical] | None = None

    def seen(self, scan: ScanIds) -> str | None:
        """Return whether the ensemble was trained on a scan: one of ``trained_cases.SEEN``, or None if not known."""
        return self.trained_cases.seen(scan) if self.trained_cases else None

    def has_page(self, scan: Scan, result: Record | None) -> bool:
        """Return whether a scan's result has its page, if it is to have one."""
        return self.pages is None or (result is not None and self.pages.has(self.listed(scan), result))

    def listed(self, scan: Scan, signature: str | None = None) -> Listed:
        """Return a scan as it is listed in the store."""
        clinical = self.clinical.get(scan.name) if self.clinical else None
        seen = self.seen(scan.ids)
        labels = list(scan.labels) if isinstance(scan.labels, tuple) else scan.labels
        return Listed(scan.name, labels, scan.points_hash, signature, scan.fault, scan.patient, seen, clinical)

    def own_scans(self) -> list[Scan]:
        """Return the scans of the shard."""
        if self.shard is None:
            return list(self.scans)
        number, shards = self.shard
        return list(self.scans[number - 1 :: shards])


def run_cohort(task: Task, engine: Engine) -> None:
    """Score the scans that are left; each outcome is stored before the next one.

    Results with the same inputs, weights and precision count, in whichever of the folder's databases they are.

    Raises:
        ConfigError: Another run is using the same database, or the database cannot be used.
    """
    path = db_path(task.output, task.shard)
    with writing(path):
        contents = read_dbs(task.output)
        clock = _Clock(contents)
        found = _survey(task, by_scan(contents))
        db = ResultsDb(path)
        try:
            _begin(db, task, found, clock(), _elsewhere(found.current, contents, path))
            for job, outcome in progress(engine.outcomes(found.jobs), len(found.jobs), "cohort", unit="scans"):
                _keep(db, task, job, _record(job, outcome, task, found.former.get(job.scan.name), clock()), outcome)
        finally:
            db.close()


def _keep(db: ResultsDb, task: Task, job: Job, record: Record, outcome: Scored | Unchanged | Failed) -> None:
    """Store a scan's outcome, then write its page: a page never shows a result that is not stored."""
    if job.only_page and record.error is not None:
        logger.warning("no page: %s", record.error)  # its result stands
        return
    db.record(record)
    if task.pages and isinstance(outcome, Scored):
        task.pages.write(task.listed(job.scan), record, outcome)


class _Clock:
    """Seconds since 1970, but later than all stored times, since clocks of other machines may be ahead."""

    def __init__(self, contents: Iterable[DbContent]) -> None:
        times = [content.plan.started for content in contents]
        times += [record.finished for content in contents for record in content.records]
        self._last = max(times, default=0)

    def __call__(self) -> float:
        self._last = max(now(), math.nextafter(self._last, math.inf))
        return self._last


@dataclass(frozen=True)
class _Survey:
    """The state of a cohort when a run begins.

    Attributes:
        jobs: The scans to read.
        signatures: The signatures of files, by name, for scans about which something is known.
        current: The results to keep as they are.
        former: The last result of this ensemble by scan. It counts if the files turn out to have the same content.
    """

    jobs: list[Job]
    signatures: dict[str, str]
    current: list[Record]
    former: dict[str, Record]


def _survey(task: Task, known: dict[str, list[Record]]) -> _Survey:
    sound = [scan for scan in task.own_scans() if scan.fault is None]
    again = [scan for scan in sound if scan.name in known]
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        looked = progress(pool.map(stat_signature, again), len(again), "looking at files", quiet_s=QUIET_S)
        signatures = dict(zip((scan.name for scan in again), looked, strict=True))
    found = _Survey([], signatures, [], {})
    for scan in sound:
        records = known.get(scan.name, ())
        results = [record for record in records if record.is_of(task.ensemble)]  # also behind a failure
        former = max(results, key=lambda record: (record.error is None, record.finished), default=None)
        if former:
            found.former[scan.name] = former
        same = [record for record in records if record.fingerprint.signature == signatures.get(scan.name)]
        done = [record for record in same if record.error is None and record.is_of(task.ensemble)]
        failed = [record for record in same if record.error is not None]
        if done:
            found.current.append(done[0])
        has_page = task.has_page(scan, done[0] if done else former)
        if not has_page if done else not failed or task.retry_failed:
            same_inputs = former.fingerprint if former and has_page else None  # for a page it has to be read again
            wanted = {"measure": task.ensemble.measures, "views": task.pages is not None, "only_page": bool(done)}
            found.jobs.append(Job(scan, same_inputs, **wanted))
    return found


def _elsewhere(current: Sequence[Record], contents: Iterable[DbContent], path: Path) -> list[Record]:
    """Return the results that count but are not in the database at ``path``."""
    ours = {record.scan: record for content in contents if content.path == path for record in content.records}
    return [record for record in current if ours.get(record.scan) != record]


def _begin(db: ResultsDb, task: Task, found: _Survey, started: float, records: Sequence[Record]) -> None:
    shard = None if task.shard is None else "{}/{}".format(*task.shard)
    plan = Plan(started, str(task.manifest), shard, task.ensemble)
    db.begin(plan, [task.listed(scan, found.signatures.get(scan.name)) for scan in task.scans], records)


def _record(job: Job, outcome: Scored | Unchanged | Failed, task: Task, former: Record | None, time: float) -> Record:
    name, points_hash = job.scan.name, job.scan.points_hash
    if isinstance(outcome, Failed):
        return Record(
            name, points_hash, outcome.fingerprint, None, None, time, outcome.error, traceback=outcome.traceback
        )
    if isinstance(outcome, Unchanged):
        if former is None:
            raise ValueError(f"{name} is the same as in no known result")
        return replace(
            former, points_hash=points_hash, fingerprint=outcome.fingerprint, finished=time, error=None, traceback=None
        )
    ensemble, fingerprint = task.ensemble, outcome.read.fingerprint
    predictions, seen = outcome.predictions, task.seen(outcome.read.warnings.ids)
    return Record(
        name, points_hash, fingerprint, ensemble.weights, ensemble.precision, time, None, predictions, seen=seen
    )
