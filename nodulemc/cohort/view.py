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


def view(folder: Path) -> View:
    """Read the state of a cohort, also while it is being written.

    Raises:
        ConfigError: the folder holds none.
    """
    paths = _store_paths(folder)
    stores = [store for store in map(Store, paths) if not store.is_empty]
    if not stores:
        raise ConfigError("no cohort", folder, "give the --output of `nodulemc cohort`")
    newest = max(stores, key=lambda store: store.plan().started)
    plan, listed = newest.plan(), newest.listing()
    names = {scan.scan for scan in listed if not scan.todo}
    records: list[Record] = []
    for store in stores:
        counting = names - {scan.scan for scan in store.listing() if scan.todo}
        records += (
            record
            for record in store.records()
            if record.scan in counting and (record.error or record.weights == plan.ensemble.weights)
        )
        store.close()
    return View(plan, listed, latest(records), sum(map(is_being_written, paths)))


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """What became last of each scan."""
    return {record.scan: record for record in sorted(records, key=lambda record: record.finished)}


def known_records(folder: Path) -> list[Record]:
    """What all of a folder's stores hold."""
    records = []
    for store in map(Store, _store_paths(folder)):
        if not store.is_empty:
            records += store.records()
        store.close()
    return records


def _store_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{STEM}*{SUFFIX}"))
