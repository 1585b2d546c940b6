import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from cohort.made import ENSEMBLE

from nodulemc.cohort.fingerprint import Fingerprint
from nodulemc.cohort.scan import Scan
from nodulemc.cohort.store import Listed, Plan, Record, Store, is_being_written, store_path, writing
from nodulemc.errors import ConfigError, ImageError
from nodulemc.points import Nodule
from nodulemc.prediction import NodulePrediction

PLAN = Plan(1.5, "manifest.csv", "1/2", ENSEMBLE)
PREDICTIONS = tuple(
    NodulePrediction(Nodule(name, (0.1, -2.0, 1e-17)), 1 / 3, (0.1, 2 / 3), ("a", "b; c")) for name in ("n", None, "é")
)
RECORD = Record("a", Fingerprint("look", "ct", "points"), "weights", "fp32", 2.25, None, PREDICTIONS)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "cohort.sqlite")
    store.begin(PLAN, [Scan("a", tmp_path, ()), Scan("b", tmp_path, (), (1, None))], lambda position: position == 0)
    yield store
    store.close()


def test_everything_comes_back(store):
    store.record(RECORD)
    assert store.plan() == PLAN
    assert store.listing() == [Listed(0, "a", None, False), Listed(1, "b", [1, None], False)]
    assert store.records() == [RECORD]


def test_todo_ends_with_the_record(store):
    assert [scan.todo for scan in store.listing()] == [True, False]
    store.record(RECORD)
    assert [scan.todo for scan in store.listing()] == [False, False]


def test_a_failure_comes_back(store):
    store.record(replace(RECORD, predictions=(), error=ImageError("bad", "here", "repair")))
    (record,) = store.records()
    assert str(record.error) == "bad: here: repair"
    assert record.predictions == ()


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
        Store(path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigError, match="store version 7"):
        Store(path)


def test_paths(tmp_path):
    assert store_path(tmp_path, None) == tmp_path / "cohort.sqlite"
    assert store_path(tmp_path, (2, 8)) == tmp_path / "cohort-2-of-8.sqlite"


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "cohort.sqlite"
    assert not is_being_written(path)
    code = f"""import pathlib, time
from nodulemc.cohort.store import writing
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
