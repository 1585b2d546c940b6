import time
from dataclasses import replace

import pytest
import SimpleITK as sitk
from cohort.made import (
    ENSEMBLE,
    MeanOfPatch,
    SerialEngine,
    make_cohort,
    read_rows,
    results,
    run_serially,
    scan_file,
    write_rows,
)
from conftest import make_ct

from nodulemc import predict
from nodulemc.cohort.export import export
from nodulemc.cohort.local_engine import LocalEngine
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.cohort.state import read_state
from nodulemc.cohort.summary import summary

pytestmark = pytest.mark.heavy


@pytest.fixture
def luna(tmp_path):
    return make_cohort(tmp_path / "luna", 5)


def edit(folder, change):
    """Change the rows of a folder's table."""
    rows = read_rows(folder / "table.csv")
    rows = [row for row in map(change, rows) if row]
    write_rows(folder / "table.csv", rows[0].keys(), [row.values() for row in rows])


def test_results_are_those_of_predict(luna, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    scans = read_cohort_manifest(luna)
    run_cohort(Task(scans, luna, output, ENSEMBLE), LocalEngine(MeanOfPatch, 2))
    expected = {scan.name: predict(scan.path, scan.points, MeanOfPatch()) for scan in scans}
    assert results(output) == {
        name: [(p.nodule, p.probability, p.member_probabilities, p.warnings) for p in predictions]
        for name, predictions in expected.items()
    }


def test_batches_of_a_gpu_change_nothing(luna, tmp_path):
    class Gpu(MeanOfPatch):
        device = "cuda"

    output = tmp_path / "out"
    output.mkdir()
    run_cohort(Task(read_cohort_manifest(luna), luna, output, ENSEMBLE), LocalEngine(lambda: Gpu(0.05), 2))
    run_serially(luna, tmp_path / "serial")
    assert results(output) == results(tmp_path / "serial")


def test_nothing_is_done_twice(luna, tmp_path):
    assert run_serially(luna, tmp_path / "out") == {scan_file(k): "scored" for k in range(5)}
    before = results(tmp_path / "out")
    assert run_serially(luna, tmp_path / "out") == {}
    assert results(tmp_path / "out") == before


def test_changed_inputs_are_noticed(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    before = results(tmp_path / "out")
    (luna / scan_file(0)).touch()
    sitk.WriteImage(make_ct(size=(40, 36, 24), seed=99), str(luna / scan_file(1)))
    edit(luna, lambda row: row | {"CoordX": float(row["CoordX"]) + 2} if row["AnnotationID"] == "2_0" else row)
    edit(luna, lambda row: row if row["AnnotationID"] != "3_1" else None)
    assert run_serially(luna, tmp_path / "out") == {
        scan_file(0): "unchanged",
        scan_file(1): "scored",
        scan_file(2): "scored",
        scan_file(3): "scored",
    }
    after = results(tmp_path / "out")
    assert [before[scan_file(k)] == after[scan_file(k)] for k in range(5)] == [True, False, False, False, True]
    assert after[scan_file(3)] == before[scan_file(3)][:1]
    assert run_serially(luna, tmp_path / "out") == {}


@pytest.mark.parametrize("change", [{"weights": "others"}, {"precision": "bf16"}])
def test_another_ensemble_scores_again(luna, tmp_path, change):
    run_serially(luna, tmp_path / "out")
    assert run_serially(luna, tmp_path / "out", ensemble=replace(ENSEMBLE, **change)) == {
        scan_file(k): "scored" for k in range(5)
    }


class Dies:
    """An engine that is interrupted before its first scan."""

    def outcomes(self, jobs):
        raise KeyboardInterrupt
        yield


def die(manifest, output, *, ensemble=ENSEMBLE, **options):
    with pytest.raises(KeyboardInterrupt):
        run_cohort(Task(read_cohort_manifest(manifest), manifest, output, ensemble, **options), Dies())


def test_results_of_other_weights_do_not_count(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    die(luna, tmp_path / "out", ensemble=replace(ENSEMBLE, weights="others"))
    state = read_state(tmp_path / "out")
    assert (state.done, state.failed, state.pending) == ([], [], 5)


@pytest.mark.parametrize("change", [{"weights": "others"}, {"precision": "bf16"}])
def test_another_ensemble_of_another_shard_does_not_count(luna, tmp_path, change):
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    run_serially(luna, tmp_path / "out", shard=(2, 2), ensemble=replace(ENSEMBLE, **change))
    assert list(results(tmp_path / "out")) == [scan_file(1), scan_file(3)]
    assert read_state(tmp_path / "out").pending == 3
    assert set(run_serially(luna, tmp_path / "out")) == {scan_file(1), scan_file(3)}
    assert read_state(tmp_path / "out").pending == 0


@pytest.mark.parametrize("interrupted", [(1, 2), None])
def test_results_of_changed_scans_do_not_count(luna, tmp_path, interrupted):
    """Whether they are to be done again by the same shard or by a run over all scans."""
    for shard in (1, 2):
        run_serially(luna, tmp_path / "out", shard=(shard, 2))
    (luna / scan_file(2)).touch()
    die(luna, tmp_path / "out", shard=interrupted)
    assert scan_file(2) not in results(tmp_path / "out")
    run_serially(luna, tmp_path / "out", shard=(2, 2))
    assert list(results(tmp_path / "out")) == [scan_file(k) for k in (0, 1, 3, 4)]


def test_results_stand_where_a_run_in_another_precision_was_given_up(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    expected = results(tmp_path / "out")
    die(luna, tmp_path / "out", ensemble=replace(ENSEMBLE, precision="bf16"))
    assert results(tmp_path / "out") == {}
    assert run_serially(luna, tmp_path / "out", shard=(1, 2)) == {}
    assert results(tmp_path / "out") == expected


def test_a_shards_results_stand_where_another_run_was_given_up(luna, tmp_path):
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    die(luna, tmp_path / "out", ensemble=replace(ENSEMBLE, precision="bf16"))
    assert run_serially(luna, tmp_path / "out", shard=(1, 2)) == {}
    assert list(results(tmp_path / "out")) == [scan_file(k) for k in (0, 2, 4)]


def test_a_shard_takes_over_what_others_have_done(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    run_serially(luna, tmp_path / "out", shard=(1, 1))
    (tmp_path / "out" / "cohort.sqlite").unlink()
    assert len(results(tmp_path / "out")) == 5


def test_failures_wait_for_a_reason(luna, tmp_path):
    (luna / scan_file(1)).rename(tmp_path / "away")
    (luna / scan_file(2)).write_bytes(b"nothing")
    expected = {scan_file(k): "failed" if k in (1, 2) else "scored" for k in range(5)}
    assert run_serially(luna, tmp_path / "out") == expected
    failed = {record.scan: str(record.error) for record in read_state(tmp_path / "out").failed}
    assert set(failed) == {scan_file(1), scan_file(2)}
    assert "No such file" in failed[scan_file(1)]
    assert run_serially(luna, tmp_path / "out") == {}
    assert run_serially(luna, tmp_path / "out", retry_failed=True) == {scan_file(1): "failed", scan_file(2): "failed"}
    (tmp_path / "away").rename(luna / scan_file(1))
    assert run_serially(luna, tmp_path / "out") == {scan_file(1): "scored"}


def exported(output):
    export(output, output)
    return [(row["AnnotationID"], row["label"]) for row in read_rows(output / "predictions.csv")]


@pytest.mark.parametrize("amended", ["swapped", "removed", "moved"])
def test_an_amended_manifest_and_results_of_another_shard(luna, tmp_path, amended):
    """Labels are zipped with nodules; they must be the same ones."""
    for shard in (1, 2):
        run_serially(luna, tmp_path / "out", shard=(shard, 2))
    rows = read_rows(luna / "table.csv")
    nodules = [k for k, row in enumerate(rows) if row["AnnotationID"] in ("1_0", "1_1")]
    if amended == "swapped":
        rows[nodules[0]], rows[nodules[1]] = rows[nodules[1]], rows[nodules[0]]
    elif amended == "removed":
        del rows[nodules[0]]
    else:
        rows[nodules[0]]["CoordX"] = float(rows[nodules[0]]["CoordX"]) + 1
    write_rows(luna / "table.csv", rows[0].keys(), [row.values() for row in rows])
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    assert exported(tmp_path / "out") == [("0_0", "0"), ("2_0", "0"), ("3_0", "1"), ("3_1", "0"), ("4_0", "0")]
    assert read_state(tmp_path / "out").pending == 1
    assert run_serially(luna, tmp_path / "out", shard=(2, 2)) == {scan_file(1): "scored"}
    assert exported(tmp_path / "out") == [(row["AnnotationID"], row["label"]) for row in rows]


def test_failures_of_another_shard_do_not_outlive_their_points(luna, tmp_path):
    edit(luna, lambda row: row | {"CoordX": 9999} if row["AnnotationID"] == "1_0" else row)
    for shard in (1, 2):
        run_serially(luna, tmp_path / "out", shard=(shard, 2))
    assert [record.scan for record in read_state(tmp_path / "out").failed] == [scan_file(1)]
    edit(luna, lambda row: row | {"CoordX": -15} if row["AnnotationID"] == "1_0" else row)
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    state = read_state(tmp_path / "out")
    assert (state.failed, state.pending) == ([], 1)


def test_points_files_of_another_shard(luna, tmp_path):
    for name in ("a", "b"):
        (luna / f"{name}.json").write_text('{"points": [{"point": [-15, 26, -120]}]}')
    rows = [(scan_file(k), "a.json") for k in range(4)]
    manifest = write_rows(luna / "m.csv", ("ct", "points"), rows)
    run_serially(manifest, tmp_path / "out")
    write_rows(manifest, ("ct", "points"), [*rows[:3], (scan_file(3), "b.json")])
    run_serially(manifest, tmp_path / "out", shard=(1, 2))
    assert list(results(tmp_path / "out")) == [scan_file(k) for k in range(3)]
    assert run_serially(manifest, tmp_path / "out", shard=(2, 2)) == {scan_file(3): "unchanged"}
    assert len(results(tmp_path / "out")) == 4


@pytest.mark.parametrize("shard", [(1, 2), (2, 2), None])
def test_a_fault_in_the_manifest_hides_a_result_and_costs_nothing(luna, tmp_path, shard):
    for number in (1, 2):
        run_serially(luna, tmp_path / "out", shard=(number, 2))
    before = results(tmp_path / "out")
    table = (luna / "table.csv").read_text()
    edit(luna, lambda row: row | {"label": "?"} if row["AnnotationID"] == "1_0" else row)
    assert run_serially(luna, tmp_path / "out", shard=shard) == {}
    assert [record.scan for record in read_state(tmp_path / "out").failed] == [scan_file(1)]
    assert scan_file(1) not in results(tmp_path / "out")
    (luna / "table.csv").write_text(table)
    assert run_serially(luna, tmp_path / "out", shard=shard) == {}
    assert results(tmp_path / "out") == before


@pytest.mark.parametrize("others", [{}, {"weights": "others"}, {"precision": "bf16"}])
def test_files_that_come_back_are_not_scored_again(luna, tmp_path, others):
    """A share was not mounted when the cohort was run once more."""
    run_serially(luna, tmp_path / "out")
    before = results(tmp_path / "out")
    (luna / "ct").rename(tmp_path / "away")
    ensemble = replace(ENSEMBLE, **others)
    assert run_serially(luna, tmp_path / "out", ensemble=ensemble) == dict.fromkeys(before, "failed")
    assert results(tmp_path / "out") == {}
    assert len(read_state(tmp_path / "out").failed) == 5
    assert run_serially(luna, tmp_path / "out") == {}
    (tmp_path / "away").rename(luna / "ct")
    assert run_serially(luna, tmp_path / "out") == dict.fromkeys(before, "unchanged")
    assert results(tmp_path / "out") == before


def test_files_that_come_back_and_stores_of_several_runs(luna, tmp_path):
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    before = results(tmp_path / "out")
    (luna / "ct").rename(tmp_path / "away")
    run_serially(luna, tmp_path / "out")
    assert results(tmp_path / "out") == {}
    (tmp_path / "away").rename(luna / "ct")
    assert run_serially(luna, tmp_path / "out") == {scan_file(1): "scored", scan_file(3): "scored"}
    assert before.items() <= results(tmp_path / "out").items()


def test_another_file_that_comes_back_is_scored(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    before = results(tmp_path / "out")
    (luna / scan_file(0)).unlink()
    run_serially(luna, tmp_path / "out")
    sitk.WriteImage(make_ct(size=(40, 36, 24), seed=99), str(luna / scan_file(0)))
    assert run_serially(luna, tmp_path / "out") == {scan_file(0): "scored"}
    assert results(tmp_path / "out")[scan_file(0)] != before[scan_file(0)]


def ahead(monkeypatch, seconds):
    monkeypatch.setattr("nodulemc.cohort.run.now", lambda: time.time() + seconds)


@pytest.mark.parametrize("known", [False, True])
def test_a_killed_shard_with_a_fast_clock(luna, tmp_path, monkeypatch, known):
    if known:
        run_serially(luna, tmp_path / "out")
        for k in range(5):
            sitk.WriteImage(make_ct(size=(40, 36, 24), seed=90 + k), str(luna / scan_file(k)))
    ahead(monkeypatch, 120)
    (tmp_path / "out").mkdir(exist_ok=True)
    die(luna, tmp_path / "out", shard=(1, 2))
    ahead(monkeypatch, 0)
    assert set(run_serially(luna, tmp_path / "out").values()) == {"scored"}
    assert len(results(tmp_path / "out")) == 5
    edit(luna, lambda row: row | {"label": "1"})
    run_serially(luna, tmp_path / "out")
    assert read_state(tmp_path / "out").listed[0].labels == [1], (
        "the newest manifest is not the one with the fastest clock"
    )


def test_a_shard_with_a_fast_clock_is_killed_beside_a_whole_run(luna, tmp_path, monkeypatch):
    class Beside(SerialEngine):
        def outcomes(self, jobs):
            for number, outcome in enumerate(super().outcomes(jobs)):
                if number == 2:
                    ahead(monkeypatch, 120)
                    die(luna, tmp_path / "out", shard=(1, 2))
                    ahead(monkeypatch, 0)
                yield outcome

    (tmp_path / "out").mkdir()
    run_cohort(Task(read_cohort_manifest(luna), luna, tmp_path / "out", ENSEMBLE), Beside())
    assert len(results(tmp_path / "out")) == 5
    assert run_serially(luna, tmp_path / "out") == {}


def test_a_fault_of_this_program_can_be_reported(luna, tmp_path, monkeypatch):
    monkeypatch.setattr("nodulemc.cohort.read_scan.read_volume", lambda path: 1 / 0)
    run_serially(luna, tmp_path / "out")
    shown = summary(read_state(tmp_path / "out"))
    assert "please report it with what `nodulemc cohort-status` shows" in shown
    assert shown.count("Traceback (most recent call last):") == 1
    assert "in read_scan\n" in shown


def test_a_repaired_manifest(luna, tmp_path):
    edit(luna, lambda row: row | {"label": "?" if row["AnnotationID"] == "4_0" else row["label"]})
    assert scan_file(4) not in run_serially(luna, tmp_path / "out")
    assert [record.scan for record in read_state(tmp_path / "out").failed] == [scan_file(4)]
    edit(luna, lambda row: row | {"label": row["label"].replace("?", "1")})
    assert run_serially(luna, tmp_path / "out") == {scan_file(4): "scored"}
    assert read_state(tmp_path / "out").failed == []


def test_labels_are_the_manifests_last(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    edit(luna, lambda row: row | {"label": "1"})
    assert run_serially(luna, tmp_path / "out") == {}
    assert [scan.labels for scan, _ in read_state(tmp_path / "out").done] == [[1], [1, 1], [1], [1, 1], [1]]


def test_a_scan_that_is_listed_again_is_still_known(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    table = (luna / "table.csv").read_text()
    edit(luna, lambda row: row if row["AnnotationID"] != "0_0" else None)
    assert run_serially(luna, tmp_path / "out") == {}
    assert scan_file(0) not in results(tmp_path / "out")
    (luna / "table.csv").write_text(table)
    assert run_serially(luna, tmp_path / "out") == {}
    assert scan_file(0) in results(tmp_path / "out")


def test_shards_are_the_whole(luna, tmp_path):
    run_serially(luna, tmp_path / "one")
    first = run_serially(luna, tmp_path / "out", shard=(1, 2))
    assert first == {scan_file(k): "scored" for k in (0, 2, 4)}
    state = read_state(tmp_path / "out")
    assert (len(state.done), state.pending) == (3, 2)
    assert run_serially(luna, tmp_path / "out", shard=(2, 2)) == {scan_file(k): "scored" for k in (1, 3)}
    assert list(results(tmp_path / "out").items()) == list(results(tmp_path / "one").items())
    assert run_serially(luna, tmp_path / "out") == {}
    assert run_serially(luna, tmp_path / "out", shard=(2, 3)) == {}
    assert read_state(tmp_path / "out").pending == 0


def test_a_shards_old_result_does_not_outlive_a_changed_scan(luna, tmp_path):
    run_serially(luna, tmp_path / "out", shard=(1, 2))
    (luna / scan_file(0)).write_bytes(b"nothing")
    run_serially(luna, tmp_path / "out")
    assert [record.scan for record in read_state(tmp_path / "out").failed] == [scan_file(0)]
    assert scan_file(0) not in results(tmp_path / "out")


def test_the_same_ct_under_several_names_is_told(luna, tmp_path):
    (luna / scan_file(4)).write_bytes((luna / scan_file(0)).read_bytes())
    run_serially(luna, tmp_path / "out")
    assert read_state(tmp_path / "out").duplicate_cts() == [[scan_file(0), scan_file(4)]]
