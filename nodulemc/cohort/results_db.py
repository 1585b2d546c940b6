"""The results of a cohort in SQLite: one file, one writer, one transaction per scan.

The journal is a rollback journal, not a write-ahead log. The latter needs memory shared by all readers and writers, so
on a cluster's network file system `nodulemc cohort-status` could not read while another node writes.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nodulemc.cohort.clinical import Clinical
from nodulemc.cohort.fingerprint import Fingerprint
from nodulemc.cohort.identity import Identity
from nodulemc.errors import ConfigError, NoduleMCError
from nodulemc.measure.sizes import Measurements
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction

STEM = "cohort"
SUFFIX = ".sqlite"
_VERSION = 5
# Older versions whose files go on, and the tables' columns that they lack.
_NEW_IN_5 = (("listing", "clinical"), ("nodules", "measurements"))
_NEW_IN_4 = (("listing", "seen"), ("scans", "seen"), ("nodules", "attributes"))
_LACKING = {2: (("listing", "patient"), *_NEW_IN_4, *_NEW_IN_5), 3: (*_NEW_IN_4, *_NEW_IN_5), 4: _NEW_IN_5}
_LISTING = ("position", "scan", "labels", "given", "look", "fault", "patient", "seen", "clinical")
_NODULE = ("name", "x", "y", "z", "probability", "per_seed", "warnings", "attributes", "measurements")
_APPLICATION = 0x4E4D4343  # "NMCC"
_PATIENCE_S = 60  # for others to finish reading or writing
_SCHEMA = (
    # One row: the last run's Plan, as JSON.
    "CREATE TABLE plan (about TEXT NOT NULL)",
    # The manifest's scans, as Listed has them.
    "CREATE TABLE listing (position INTEGER PRIMARY KEY, scan TEXT NOT NULL UNIQUE, labels TEXT NOT NULL, "
    "given TEXT NOT NULL, look TEXT, fault TEXT, patient TEXT, seen TEXT, clinical TEXT)",
    # The facts about scans. error is null, or a JSON list of what, where and remedy. A failure keeps ct, points,
    # weights, precision and the nodules unchanged, because the files may come back.
    "CREATE TABLE scans (scan TEXT PRIMARY KEY, given TEXT NOT NULL, look TEXT NOT NULL, ct TEXT, points TEXT, "
    "weights TEXT, precision TEXT, finished REAL NOT NULL, error TEXT, traceback TEXT, seen TEXT)",
    "CREATE TABLE nodules (scan TEXT NOT NULL, number INTEGER NOT NULL, name TEXT, x REAL NOT NULL, y REAL NOT NULL, "
    "z REAL NOT NULL, probability REAL NOT NULL, per_seed TEXT NOT NULL, warnings TEXT NOT NULL, "
    "attributes TEXT, measurements TEXT, PRIMARY KEY (scan, number))",
)


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        started: The start in seconds since 1970.
        manifest: The manifest's path.
        shard: "i/n". None for the whole cohort.
        ensemble: The ensemble that scores.
    """

    started: float
    manifest: str
    shard: str | None
    ensemble: Identity


@dataclass(frozen=True)
class Listed:
    """A scan of the manifest.

    Attributes:
        scan: As in ``Scan``.
        labels: As in ``Scan``.
        points_hash: As in ``Scan``.
        signature: The signature of its files when the run began (see ``Fingerprint``). None if the scan was not part of
            the run, or nothing was known about it.
        fault: A fault of the manifest's rows. None if they can be used.
        patient: As in ``Scan``.
        seen: Whether the ensemble was trained on it, by the manifest's identifiers: one of ``SEEN`` in
            ``nodulemc.ensemble.trained_cases``. None if it is not known.
        clinical: The clinical values about it. None if risk was not asked for.
    """

    scan: str
    labels: list[int | None] | int | None
    points_hash: str
    signature: str | None
    fault: NoduleMCError | None
    patient: str | None = None
    seen: str | None = None
    clinical: Clinical | None = None


@dataclass(frozen=True)
class Record:
    """The outcome of one scan: predictions, or an error and the former result.

    Attributes:
        scan: Its name.
        points_hash: As in ``Scan``.
        fingerprint: Its inputs. For a failure, the signature is the failure's, and the hashes are the former result's.
        weights: The ensemble that made the predictions. None if there are none.
        precision: The number format that it ran in. None if there are none.
        finished: The end in seconds since 1970.
        error: The reason for a failure. None if there was none.
        predictions: The predictions for its nodules, in their order. For a failure, the former ones.
        traceback: The traceback of a fault of this program.
        seen: As in ``Listed``, but by the identifiers in the scan's own header.
    """

    scan: str
    points_hash: str
    fingerprint: Fingerprint
    weights: str | None
    precision: str | None
    finished: float
    error: NoduleMCError | None
    predictions: tuple[NodulePrediction, ...] = ()
    traceback: str | None = None
    seen: str | None = None

    def is_of(self, ensemble: Identity) -> bool:
        """Return whether its predictions are from these weights in this precision, and are measured if asked for."""
        measured = all(prediction.measurements is not None for prediction in self.predictions)
        is_same = (self.weights, self.precision) == (ensemble.weights, ensemble.precision)
        return is_same and (measured or not ensemble.measures)


class ResultsDb:
    """One SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open the file; a missing file is made.

        Raises:
            ConfigError: it cannot be opened, or is no database of this version.
        """
        self._path = path
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
        with self._reading() as do:
            application = do.execute("PRAGMA application_id").fetchone()[0]
            self._version = do.execute("PRAGMA user_version").fetchone()[0]
            tables = do.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        is_new = (application, self._version, tables) == (0, 0, 0)
        if not is_new and application != _APPLICATION:
            raise ConfigError("another program's file", path, "move it away, or name a new folder")
        if not is_new and self._version not in (*_LACKING, _VERSION):
            raise ConfigError(
                f"store version {self._version}", path, f"this program's is {_VERSION}; name a new folder"
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def is_empty(self) -> bool:
        """Whether no run has begun in this file."""
        if self._version == 0:
            return True
        with self._reading() as do:
            return bool(do.execute("SELECT COUNT(*) FROM plan").fetchone()[0] == 0)

    def begin(self, plan: Plan, scans: Sequence[Listed], records: Sequence[Record] = ()) -> None:
        """Store a run's plan, the manifest's scans, and the results known from the start."""
        with self._transaction() as do:
            if not self._version:
                for statement in _SCHEMA:
                    do.execute(statement)
                do.execute(f"PRAGMA application_id = {_APPLICATION}")
            for table, column in _LACKING.get(self._version, ()):
                do.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")
            do.execute(f"PRAGMA user_version = {_VERSION}")
            do.execute("DELETE FROM plan")
            do.execute("INSERT INTO plan VALUES (?)", (json.dumps(asdict(plan)),))
            do.execute("DELETE FROM listing")
            rows = (
                (k, s.scan, json.dumps(s.labels), s.points_hash, s.signature, _error_json(s.fault), s.patient, s.seen,
                 s.clinical and json.dumps(asdict(s.clinical)))
                for k, s in enumerate(scans)
            )  # fmt: skip
            do.executemany(f"INSERT INTO listing ({', '.join(_LISTING)}) VALUES (?{', ?' * 8})", rows)  # noqa: S608
            for record in records:
                _note(do, record)
        self._version = _VERSION

    def record(self, record: Record) -> None:
        """Store a scan's outcome: a result replaces the former one, a failure is added to it."""
        with self._transaction() as do:
            _note(do, record)

    def plan(self) -> Plan:
        """The last run's plan."""
        with self._reading() as do:
            about = json.loads(do.execute("SELECT about FROM plan").fetchone()[0])
            ensemble: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["ensemble"].items()}
            return Plan(**about | {"ensemble": Identity(**ensemble)})

    def listed_scans(self) -> list[Listed]:
        """The manifest's scans, in its order."""
        with self._reading() as do:
            columns = self._columns("listing", *_LISTING[1:])
            rows = do.execute(f"SELECT {columns} FROM listing ORDER BY position")  # noqa: S608
            return [
                Listed(
                    scan,
                    json.loads(labels),
                    points_hash,
                    signature,
                    _error(fault),
                    patient,
                    seen,
                    clinical and Clinical(**json.loads(clinical)),
                )
                for scan, labels, points_hash, signature, fault, patient, seen, clinical in rows
            ]

    def records(self) -> list[Record]:
        """Return all results and failures, including those of scans that are no longer listed."""
        with self._reading() as do:
            nodules: dict[str, list[NodulePrediction]] = {}
            columns = self._columns("nodules", "scan", *_NODULE)
            for scan, *row in do.execute(f"SELECT {columns} FROM nodules ORDER BY scan, number"):  # noqa: S608
                nodules.setdefault(scan, []).append(_prediction(row))
            names = ("scan", "given", "look", "ct", "points", "weights", "precision", "finished", "error")
            scans = do.execute(f"SELECT {self._columns('scans', *names, 'traceback', 'seen')} FROM scans")  # noqa: S608
            return [
                Record(
                    scan,
                    given,
                    Fingerprint(signature, ct, points),
                    weights,
                    precision,
                    finished,
                    _error(error),
                    tuple(nodules.get(scan, ())),
                    traceback,
                    seen,
                )
                for scan, given, signature, ct, points, weights, precision, finished, error, traceback, seen in scans
            ]

    def _columns(self, table: str, *names: str) -> str:
        """Return the columns to ask for. Columns that this version of the file lacks are null."""
        lacking = _LACKING.get(self._version, ())
        return ", ".join("NULL" if (table, name) in lacking else name for name in names)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Read everything as of one moment."""
        with self._explained():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(error) from error
            finally:
                self._connection.rollback()

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
            if type(error) is sqlite3.DatabaseError:  # the file's content; its subclasses are of all other kinds
                raise self._damaged(error) from error
            raise ConfigError(
                f"cannot use the store ({error})",
                self._path,
                "check that its folder can be written and locked, and is not full",
            ) from error

    def _damaged(self, error: Exception) -> ConfigError:
        remedy = "move it away: the next run scores its scans again"
        return ConfigError(f"a damaged store ({error})", self._path, remedy)


def db_path(folder: Path, shard: tuple[int, int] | None) -> Path:
    """Return the file for runs of the whole cohort, or of one shard."""
    return folder / (f"{STEM}{SUFFIX}" if shard is None else f"{STEM}-{shard[0]}-of-{shard[1]}{SUFFIX}")


def now() -> float:
    """Return the seconds since 1970."""
    return time.time()


def _note(do: sqlite3.Connection, record: Record) -> None:
    seen, error = record.fingerprint, _error_json(record.error)
    if error:
        do.execute(
            "INSERT INTO scans (scan, given, look, finished, error, traceback) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (scan) DO UPDATE SET given = excluded.given, look = excluded.look, "
            "finished = excluded.finished, error = excluded.error, traceback = excluded.traceback",
            (record.scan, record.points_hash, seen.signature, record.finished, error, record.traceback),
        )
        return
    about = (record.scan, record.points_hash, seen.signature, seen.ct, seen.points)
    result = (record.weights, record.precision, record.finished, None, None, record.seen)
    do.execute("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*about, *result))
    do.execute("DELETE FROM nodules WHERE scan = ?", (record.scan,))
    do.executemany(
        f"INSERT INTO nodules (scan, number, {', '.join(_NODULE)}) VALUES (?, ?{', ?' * len(_NODULE)})",  # noqa: S608
        ((record.scan, k, *_nodule_row(p)) for k, p in enumerate(record.predictions, start=1)),
    )


def _error_json(error: NoduleMCError | None) -> str | None:
    return json.dumps([error.what, error.where, error.remedy]) if error else None


def _error(text: str | None) -> NoduleMCError | None:
    return NoduleMCError(*json.loads(text)) if text else None


def _nodule_row(p: NodulePrediction) -> tuple[Any, ...]:
    lists = map(json.dumps, (p.member_probabilities, p.warnings, p.attributes))
    return p.nodule.name, *p.nodule.point, p.probability, *lists, p.measurements and json.dumps(asdict(p.measurements))


def _prediction(row: Sequence[Any]) -> NodulePrediction:
    name, x, y, z, probability, *lists, sizes = row
    by_member, warnings, attributes = (tuple(json.loads(text or "[]")) for text in lists)
    measurements = Measurements(**json.loads(sizes)) if sizes else None
    return NodulePrediction(Nodule(name, (x, y, z)), probability, by_member, warnings, attributes, measurements)
