"""The state of a cohort: the databases of all shards and runs together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from nodulemc.cohort.clinical import assessed
from nodulemc.cohort.fingerprint import Fingerprint
from nodulemc.cohort.names import annotation_id
from nodulemc.cohort.results_db import STEM, SUFFIX, Listed, Plan, Record, ResultsDb
from nodulemc.ensemble.trained_cases import WARNINGS, strongest, with_warning
from nodulemc.errors import ConfigError
from nodulemc.prediction import NodulePrediction
from nodulemc.util.locks import is_being_written


@dataclass(frozen=True)
class CohortState:
    """The state of a cohort.

    Attributes:
        plan: The plan of the latest run.
        listed: Its manifest's scans, in their order.
        records: Their outcomes by name. A scan that is missing here is still to be done, or to be done again.
        outdated: Results with other weights or another precision than the plan's, for scans that are still to be done.
        running: The number of runs in progress.
    """

    plan: Plan
    listed: list[Listed]
    records: dict[str, Record]
    outdated: list[Record]
    running: int

    @property
    def done(self) -> list[tuple[Listed, Record]]:
        """The scans with results."""
        found = [(scan, self.records[scan.scan]) for scan in self.listed if scan.scan in self.records]
        return [(scan, record) for scan, record in found if record.error is None]

    @property
    def failed(self) -> list[Record]:
        """The failures, in the manifest's order."""
        found = [self.records[scan.scan] for scan in self.listed if scan.scan in self.records]
        return [record for record in found if record.error is not None]

    @property
    def pending(self) -> int:
        """The number of scans that are still to be done."""
        return len(self.listed) - len(self.records)

    @property
    def without_result(self) -> set[str]:
        """The names of the scans that have failed or are still to be done."""
        return {scan.scan for scan in self.listed} - {scan.scan for scan, _ in self.done}

    @property
    def trained_on(self) -> list[tuple[Listed, Record]]:
        """The scans with results that the ensemble was trained on, or was trained on other scans of their patients."""
        return [(listed, record) for listed, record in self.done if seen(listed, record) in WARNINGS]

    def duplicate_cts(self) -> list[list[str]]:
        """Groups of scans with byte-identical CTs, by their names."""
        groups: dict[str | None, list[str]] = {}
        for _, record in self.done:
            groups.setdefault(record.fingerprint.ct, []).append(record.scan)
        return [group for group in groups.values() if len(group) > 1]


def seen(listed: Listed, record: Record) -> str | None:
    """Return whether the ensemble was trained on a scan, by the manifest or the scan's own header."""
    return strongest([listed.seen, record.seen])


def annotation_ids(listed: Listed, record: Record) -> list[str]:
    """Return the names of a scan's nodules in the cohort.

    Only the manifest's names are known, and unique, before all scans are done.
    """
    by_manifest = isinstance(listed.labels, list)
    names = (p.nodule.name if by_manifest else None for p in record.predictions)
    return [annotation_id(record.scan, k, name) for k, name in enumerate(names, start=1)]


def findings(listed: Listed, record: Record) -> list[NodulePrediction]:
    """Return a scan's predictions with a warning if it was trained on, and with the risk models' results."""
    known = seen(listed, record)
    noted = [replace(p, warnings=with_warning(p.warnings, known)) for p in record.predictions]
    return assessed(noted, annotation_ids(listed, record), listed.clinical)


@dataclass(frozen=True)
class DbContent:
    """The content of one database; see ``ResultsDb``."""

    path: Path
    plan: Plan
    listed: list[Listed]
    records: list[Record]


def read_dbs(folder: Path) -> list[DbContent]:
    """Read all databases in a cohort's folder that a run has begun.

    Raises:
        ConfigError: one of them cannot be used.
    """
    contents = []
    for path in sorted(folder.glob(f"{STEM}*{SUFFIX}")):
        db = ResultsDb(path)
        try:
            if not db.is_empty:
                contents.append(DbContent(path, db.plan(), db.listed_scans(), db.records()))
        finally:
            db.close()
    return contents


def read_state(folder: Path) -> CohortState:
    """Read the state of a cohort, even while it is being written.

    Raises:
        ConfigError: the folder holds none.
    """
    contents = read_dbs(folder)
    if not contents:
        raise ConfigError("no cohort", folder, "give the --output of `nodulemc cohort`")
    newest = max(contents, key=lambda content: content.plan.started)
    known = by_scan(contents)
    signatures = _last_signatures(contents)
    records, outdated = {}, []
    for listed in newest.listed:
        found = known.get(listed.scan, ())
        if record := _current(listed, found, newest.plan, signatures.get(listed.scan)):
            records[listed.scan] = record
        elif others := [record for record in found if record.weights and not record.is_of(newest.plan.ensemble)]:
            outdated.append(max(others, key=lambda record: record.finished))
    running = sum(is_being_written(content.path) for content in contents)
    return CohortState(newest.plan, newest.listed, records, outdated, running)


def by_scan(contents: Iterable[DbContent]) -> dict[str, list[Record]]:
    """Group all records by scan."""
    records: dict[str, list[Record]] = {}
    for content in contents:
        for record in content.records:
            records.setdefault(record.scan, []).append(record)
    return records


@dataclass(frozen=True)
class _Signature:
    """A scan's signature when a run began, see ``Listed``."""

    started: float
    signature: str


def _last_signatures(contents: Iterable[DbContent]) -> dict[str, _Signature]:
    signatures: dict[str, _Signature] = {}
    for content in sorted(contents, key=lambda content: content.plan.started):
        for listed in content.listed:
            if listed.signature is not None:
                signatures[listed.scan] = _Signature(content.plan.started, listed.signature)
    return signatures


def _current(listed: Listed, records: Iterable[Record], plan: Plan, last: _Signature | None) -> Record | None:
    """Return the records of a scan that count under the latest run's plan."""
    if listed.fault is not None:
        return Record(listed.scan, listed.points_hash, Fingerprint(""), None, None, plan.started, listed.fault)
    current = [
        record
        for record in records
        if record.points_hash == listed.points_hash
        and (record.error is not None or record.is_of(plan.ensemble))
        # The scan has not changed since the last run that has looked at it; clocks matter where it has.
        and (last is None or record.fingerprint.signature == last.signature or record.finished >= last.started)
    ]
    return max(current, key=lambda record: (record.error is None, record.finished), default=None)
