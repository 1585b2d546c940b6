"""The results of a cohort in SQLite: one file, one writer, one transaction per scan.

The journal is a rollback journal, not a write-ahead log: that one needs memory shared by all readers and writers, so
on a cluster's network file system `nodulemc status` could not look at what another node writes.
"""

import fcntl
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nodulemc.cohort.fingerprint import Fingerprint
from nodulemc.cohort.identity import Identity
from nodulemc.cohort.scan import Scan
from nodulemc.errors import ConfigError, NoduleMCError
from nodulemc.points import Nodule
from nodulemc.prediction import NodulePrediction

STEM = "cohort"
SUFFIX = ".sqlite"
_VERSION = 1
_APPLICATION = 0x4E4D4343  # "NMCC"
_PATIENCE_S = 60  # for others to finish reading or writing
_SCHEMA = (
    # One row: the last run's Plan, as JSON.
    "CREATE TABLE plan (about TEXT NOT NULL)",
    # The manifest's scans; todo: the last run has not come to it yet.
    "CREATE TABLE listing (position INTEGER PRIMARY KEY, scan TEXT NOT NULL UNIQUE, labels TEXT NOT NULL, "
    "todo INTEGER NOT NULL)",
    # Results and failures; error: null, or a JSON list of what, where and remedy.
    "CREATE TABLE scans (scan TEXT PRIMARY KEY, look TEXT NOT NULL, ct TEXT, points TEXT, weights TEXT, "
    "precision TEXT, finished REAL NOT NULL, error TEXT)",
    "CREATE TABLE nodules (scan TEXT NOT NULL, number INTEGER NOT NULL, name TEXT, x REAL NOT NULL, y REAL NOT NULL, "
    "z REAL NOT NULL, probability REAL NOT NULL, per_seed TEXT NOT NULL, warnings TEXT NOT NULL, "
    "PRIMARY KEY (scan, number))",
)


@dataclass(frozen=True)
class Plan:
    """What a run has set out to do.

    Attributes:
        started: seconds since 1970.
        manifest: its path.
        shard: "i/n", None for the whole cohort.
        ensemble: what scores.
    """

    started: float
    manifest: str
    shard: str | None
    ensemble: Identity


@dataclass(frozen=True)
class Listed:
    """A scan of the listing; ``labels`` as in ``Scan``."""

    position: int
    scan: str
    labels: list[int | None] | int | None
    todo: bool


@dataclass(frozen=True)
class Record:
    """What became of one scan: an error or predictions.

    Attributes:
        scan: its name.
        fingerprint: its inputs.
        weights, precision: of the ensemble, None where the scan has failed.
        finished: seconds since 1970.
        error: why it failed, None where it did not.
        predictions: of its nodules in their order.
    """

    scan: str
    fingerprint: Fingerprint
    weights: str | None
    precision: str | None
    finished: float
    error: NoduleMCError | None
    predictions: tuple[NodulePrediction, ...] = ()

    def is_of(self, ensemble: Identity) -> bool:
        """Whether it is a result of these weights in this precision."""
        return (self.weights, self.precision) == (ensemble.weights, ensemble.precision)


class Store:
    """One SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open it; a missing file is made.

        Raises:
            ConfigError: it cannot be opened, or is no store of this version.
        """
        self._path = path
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
            self._version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if self._version not in (0, _VERSION):
            raise ConfigError(
                f"store version {self._version}", path, f"this program's is {_VERSION}; name a new folder"
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def is_empty(self) -> bool:
        """Whether no run has begun it."""
        return self._version == 0 or self._connection.execute("SELECT COUNT(*) FROM plan").fetchone()[0] == 0

    def begin(
        self, plan: Plan, scans: Sequence[Scan], todo: Callable[[int], bool], records: Sequence[Record] = ()
    ) -> None:
        """Note a run's plan, the manifest's scans, and what is known from the start.

        ``todo`` says of each position whether this run will do it.
        """
        with self._transaction() as do:
            if not self._version:
                for statement in _SCHEMA:
                    do.execute(statement)
                do.execute(f"PRAGMA application_id = {_APPLICATION}")
                do.execute(f"PRAGMA user_version = {_VERSION}")
            do.execute("DELETE FROM plan")
            do.execute("INSERT INTO plan VALUES (?)", (json.dumps(asdict(plan)),))
            do.execute("DELETE FROM listing")
            do.executemany(
                "INSERT INTO listing VALUES (?, ?, ?, ?)",
                ((k, scan.name, json.dumps(scan.labels), todo(k)) for k, scan in enumerate(scans)),
            )
            for record in records:
                _replace(do, record)
        self._version = _VERSION

    def record(self, record: Record) -> None:
        """Replace what is known of a scan."""
        with self._transaction() as do:
            _replace(do, record)

    def plan(self) -> Plan:
        """The last run's plan."""
        about = json.loads(self._connection.execute("SELECT about FROM plan").fetchone()[0])
        about["ensemble"]["seeds"] = tuple(about["ensemble"]["seeds"])
        return Plan(**about | {"ensemble": Identity(**about["ensemble"])})

    def listing(self) -> list[Listed]:
        """The manifest's scans, in its order."""
        rows = self._connection.execute("SELECT position, scan, labels, todo FROM listing ORDER BY position")
        return [Listed(position, scan, json.loads(labels), bool(todo)) for position, scan, labels, todo in rows]

    def records(self) -> list[Record]:
        """All results and failures, also of scans that are not listed any more."""
        with self._explained():
            self._connection.execute("BEGIN")  # both tables as of one moment
            nodules: dict[str, list[NodulePrediction]] = {}
            for scan, *row in self._connection.execute(
                "SELECT scan, name, x, y, z, probability, per_seed, warnings FROM nodules ORDER BY scan, number"
            ):
                nodules.setdefault(scan, []).append(_prediction(row))
            scans = self._connection.execute(
                "SELECT scan, look, ct, points, weights, precision, finished, error FROM scans"
            ).fetchall()
            self._connection.execute("COMMIT")
        return [
            Record(
                scan,
                Fingerprint(look, ct, points),
                weights,
                precision,
                finished,
                error and NoduleMCError(*json.loads(error)),
                tuple(nodules.get(scan, ())),
            )
            for scan, look, ct, points, weights, precision, finished, error in scans
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # an interrupt may come right behind the commit
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ConfigError(
                f"cannot use the store ({error})",
                self._path,
                "check that it is a cohort's store, in a writable folder that is not full",
            ) from error


def store_path(folder: Path, shard: tuple[int, int] | None) -> Path:
    """The file of the whole cohort's runs, or of one shard's."""
    return folder / (f"{STEM}{SUFFIX}" if shard is None else f"{STEM}-{shard[0]}-of-{shard[1]}{SUFFIX}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a store as its only writer; ends with this process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_lock_file(path).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another run is at work on this cohort", path, "wait for it, or see `nodulemc status`"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"cannot lock the store ({error.strerror})", path, "name a folder that can be written and locked"
            ) from error
        yield


def is_being_written(path: Path) -> bool:
    """Whether a run is at work on a store."""
    try:
        with _lock_file(path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run has ever locked it, or not where this machine sees it
        return False
    return False


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def _lock_file(path: Path) -> Path:
    return path.with_suffix(".lock")


def _replace(do: sqlite3.Connection, record: Record) -> None:
    error = record.error and json.dumps([record.error.what, record.error.where, record.error.remedy])
    seen = record.fingerprint
    do.execute("DELETE FROM nodules WHERE scan = ?", (record.scan,))
    do.execute(
        "INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (record.scan, seen.look, seen.ct, seen.points, record.weights, record.precision, record.finished, error),
    )
    do.executemany(
        "INSERT INTO nodules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((record.scan, k, *_nodule_row(p)) for k, p in enumerate(record.predictions, start=1)),
    )
    do.execute("UPDATE listing SET todo = 0 WHERE scan = ?", (record.scan,))


def _nodule_row(p: NodulePrediction) -> tuple[Any, ...]:
    return p.nodule.name, *p.nodule.point, p.probability, json.dumps(p.per_seed), json.dumps(p.warnings)


def _prediction(row: Sequence[Any]) -> NodulePrediction:
    name, x, y, z, probability, per_seed, warnings = row
    return NodulePrediction(
        Nodule(name, (x, y, z)), probability, tuple(json.loads(per_seed)), tuple(json.loads(warnings))
    )
