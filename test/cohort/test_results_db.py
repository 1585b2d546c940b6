import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from cohort.made import ENSEMBLE

from nodulemc.cohort.clinical import Clinical
from nodulemc.cohort.fingerprint import Fingerprint
from nodulemc.cohort.results_db import Listed, Plan, Record, ResultsDb, db_path
from nodulemc.errors import ConfigError, ImageError
from nodulemc.measure.sizes import Measurements
from nodulemc.points.reading import Nodule
from nodulemc.prediction import NodulePrediction
from nodulemc.util.locks import is_being_written, try_to_lock, wait_for_lock, writing

PLAN = Plan(1.5, "manifest.csv", "1/2", ENSEMBLE)
PREDICTIONS = tuple(
    NodulePrediction(Nodule(name, (0.1, -2.0, 1e-17)), 1 / 3, (0.1, 2 / 3), ("a", "b; c"), attributes, sizes)
    for name, attributes, sizes in (
        ("n", (), None), (None, (1.5, 5.0), Measurements()), ("é", (1 / 3,), Measurements(1 / 3, 8.5, 7.1, 8))
    )
)  # fmt: skip
LISTING = [
    Listed("a", None, "given", "look", None, "patient", "scan", Clinical({"age": 61.5}, {"n": {"upper_lobe": True}})),
    Listed("b", [1, None], "given", None, ImageError("bad", "here", "repair")),
]
RECORD = Record(
    "a", "given", Fingerprint("look", "ct", "points"), "weights", "fp32", 2.25, None, PREDICTIONS, seen="no"
)


@pytest.fixture
def store(tmp_path):
    store = ResultsDb(tmp_path / "cohort.sqlite")
    store.begin(PLAN, LISTING)
    yield store
    store.close()


def test_everything_comes_back(store):
    store.record(RECORD)
    assert store.plan() == PLAN
    (first, second), (expected, faulty) = store.listed_scans(), LISTING
    assert first == expected
    assert str(second.fault) == "bad: here: repair"
    assert replace(second, fault=None) == replace(faulty, fault=None)
    assert store.records() == [RECORD]


def failure(signature: str) -> Record:
    error = ImageError("bad", "here", "repair")
    return Record("a", "given", Fingerprint(signature), None, None, 3.0, error, traceback="Traceback")


def test_a_failure_comes_back(store):
    store.record(failure("look"))
    (record,) = store.records()
    assert str(record.error) == "bad: here: repair"
    assert replace(record, error=None) == replace(failure("look"), error=None)


def test_a_failure_leaves_a_former_result(store):
    store.record(RECORD)
    store.record(failure("gone"))
    (record,) = store.records()
    assert str(record.error) == "bad: here: repair"
    kept = replace(RECORD, fingerprint=Fingerprint("gone", "ct", "points"), finished=3.0, traceback="Traceback")
    assert replace(record, error=None) == kept
    store.record(RECORD)
    assert store.records() == [RECORD]


def test_a_new_record_replaces_the_old_one(store):
    store.record(RECORD)
    store.record(replace(RECORD, predictions=PREDICTIONS[:1]))
    assert store.records() == [replace(RECORD, predictions=PREDICTIONS[:1])]


def test_a_record_is_kept_whole_or_not_at_all(store, tmp_path):
    store.record(RECORD)
    nameless = replace(PREDICTIONS[0], nodule=Nodule("n", (0.0, 0.0, None)))
    with pytest.raises(ConfigError, match="cannot use the store"):
        store.record(replace(RECORD, predictions=(PREDICTIONS[1], nameless)))
    assert store.records() == [RECORD]


def test_no_store_of_ours(tmp_path):
    path = tmp_path / "cohort.sqlite"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        ResultsDb(path)
    path.unlink()
    ResultsDb(path).close()
    assert ResultsDb(path).is_empty
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE plan (about TEXT)")
        for version in (0, 1, 2):
            other.execute(f"PRAGMA user_version = {version}")
            with pytest.raises(ConfigError, match="another program's file"):
                ResultsDb(path)


def test_another_version(store, tmp_path):
    with sqlite3.connect(tmp_path / "cohort.sqlite") as other:
        other.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigError, match="store version 7"):
        ResultsDb(tmp_path / "cohort.sqlite")


@pytest.mark.heavy
@pytest.mark.parametrize("read", [ResultsDb.plan, ResultsDb.listed_scans, ResultsDb.records])
def test_damaged_pages(store, tmp_path, read):
    for k in range(200):
        store.record(replace(RECORD, scan=str(k)))
    content = bytearray((tmp_path / "cohort.sqlite").read_bytes())
    content[4096:] = b"\xa5" * len(content[4096:])
    (tmp_path / "damaged.sqlite").write_bytes(content)
    damaged = ResultsDb(tmp_path / "damaged.sqlite")
    with pytest.raises(ConfigError, match=r"a damaged store .*: move it away"):
        read(damaged)
    with pytest.raises(ConfigError, match=r"a damaged store .*: move it away"):
        damaged.record(RECORD)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE plan SET about = '{'", ResultsDb.plan),
        ("UPDATE plan SET about = '{}'", ResultsDb.plan),
        ("UPDATE listing SET labels = ''", ResultsDb.listed_scans),
        ("UPDATE nodules SET warnings = 7", ResultsDb.records),
    ],
)
def test_damaged_content(store, tmp_path, change, read):
    store.record(RECORD)
    with sqlite3.connect(tmp_path / "cohort.sqlite") as other:
        other.execute(change)
    with pytest.raises(ConfigError, match=r"a damaged store .*: move it away"):
        read(store)


def test_paths(tmp_path):
    assert db_path(tmp_path, None) == tmp_path / "cohort.sqlite"
    assert db_path(tmp_path, (2, 8)) == tmp_path / "cohort-2-of-8.sqlite"


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "cohort.sqlite"
    assert not is_being_written(path)
    code = f"""import pathlib, time
from nodulemc.util.locks import writing
with writing(pathlib.Path({str(path)!r})):
    print("here", flush=True)
    time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert is_being_written(path)
        with pytest.raises(ConfigError, match="another run is at work"), writing(path):
            pass
        other.kill()
    with pytest.raises(ConfigError, match="cannot lock the store"), writing(tmp_path / "nowhere" / "cohort.sqlite"):
        pass
    with writing(path):
        assert is_being_written(path)
    assert not is_being_written(path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_can_hold_a_cohort(tmp_path, monkeypatch, number):
    """As it can hold a training run, a block store and phantoms."""

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "cohort.sqlite"
    with writing(path), writing(path), (tmp_path / "lock").open("w") as file:
        assert not is_being_written(path)
        assert try_to_lock(file)
        wait_for_lock(file)


def test_any_other_fault_of_a_lock_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(ConfigError, match="cannot lock the store"), writing(tmp_path / "cohort.sqlite"):
        pass


@pytest.mark.parametrize(
    ("version", "patients", "seen"),
    [(2, [None, None], None), (3, ["patient", None], None), (4, ["patient", None], "scan")],
)
def test_a_store_of_an_older_version_is_read_and_goes_on(tmp_path, store, version, patients, seen):
    """Version 2 had no patients, 3 no attributes or what the ensemble was trained on, 4 no measurements."""
    plain = replace(RECORD, predictions=tuple(replace(p, measurements=None) for p in PREDICTIONS))
    if version < 4:
        plain = replace(plain, seen=None, predictions=tuple(replace(p, attributes=()) for p in plain.predictions))
    store.record(RECORD)
    store.close()
    lacking = [("listing", "clinical"), ("nodules", "measurements")]
    lacking += [("listing", "seen"), ("scans", "seen"), ("nodules", "attributes")] * (version < 4)
    with sqlite3.connect(tmp_path / "cohort.sqlite") as connection:
        for table, column in [("listing", "patient")] * (version == 2) + lacking:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version = {version}")
    older = ResultsDb(tmp_path / "cohort.sqlite")
    assert [listed.patient for listed in older.listed_scans()] == patients
    assert [(listed.seen, listed.clinical) for listed in older.listed_scans()] == [(seen, None), (None, None)]
    assert older.records() == [plain]
    older.begin(PLAN, LISTING)
    assert older.listed_scans()[0] == LISTING[0]
    older.record(replace(RECORD, scan="b"))
    older.close()
    again = ResultsDb(tmp_path / "cohort.sqlite")
    assert again.listed_scans()[0] == LISTING[0]
    assert again.records() == [plain, replace(RECORD, scan="b")]
    again.close()
