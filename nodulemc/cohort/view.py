"""A cohort's folder as one: the stores of all shards and runs together."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodulemc.cohort.store import STEM, SUFFIX, Listed, Plan, Record, Store, is_being_written
from nodulemc.errors import ConfigError


@dataclass(frozen=True)
class View:
    """The state of a cohort.

    Attributes:
        plan: the last begun run's.
        listed: the manifest's scans, in its order.
        records: what is known of them by name; a scan that is missing here is yet to be done, or to be done again.
        running: how many runs are at work.
    """

    plan: Plan
    listed: list[Listed]
    records: dict[str, Record]
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
        """How many scans are yet to be done."""
        return len(self.listed) - len(self.records)

    def alike(self) -> list[list[str]]:
        """Scans whose CTs hold the same bytes, by groups of their names."""
        groups: dict[str, list[str]] = {}
        for _, record in self.done:
            groups.setdefault(record.fingerprint.ct, []).append(record.scan)
        return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class StoreContent:
    """What one store holds; see ``Store``."""

    path: Path
    plan: Plan
    listed: list[Listed]
    records: list[Record]


def read_stores(folder: Path) -> list[StoreContent]:
    """All stores of a cohort's folder that a run has begun.

    Raises:
        ConfigError: one of them cannot be used.
    """
    contents = []
    for path in sorted(folder.glob(f"{STEM}*{SUFFIX}")):
        store = Store(path)
        try:
            if not store.is_empty:
                contents.append(StoreContent(path, store.plan(), store.listing(), store.records()))
        finally:
            store.close()
    return contents


def view(folder: Path) -> View:
    """Read the state of a cohort, also while it is being written.

    Raises:
        ConfigError: the folder holds none.
    """
    contents = read_stores(folder)
    if not contents:
        raise ConfigError("no cohort", folder, "give the --output of `nodulemc cohort`")
    newest = max(contents, key=lambda content: content.plan.started)
    names = {scan.scan for scan in newest.listed}
    since = redone_since(contents)
    records = latest(
        record
        for content in contents
        for record in content.records
        if record.scan in names
        and record.finished >= since.get(record.scan, 0)
        and (record.error or record.weights == newest.plan.ensemble.weights)
    )
    running = sum(is_being_written(content.path) for content in contents)
    return View(newest.plan, newest.listed, records, running)


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """What became last of each scan."""
    return {record.scan: record for record in sorted(records, key=lambda record: record.finished)}


def redone_since(contents: Iterable[StoreContent]) -> dict[str, float]:
    """When a run set out to do scans (again) that it has not come to; what was known of them before does not count."""
    since: dict[str, float] = {}
    for content in contents:
        for scan in content.listed:
            if scan.todo:
                since[scan.scan] = max(content.plan.started, since.get(scan.scan, 0))
    return since
