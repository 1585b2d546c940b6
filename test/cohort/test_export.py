import json
from dataclasses import replace

import pyarrow.parquet
import pytest
from cohort.made import (
    ENSEMBLE,
    MeanOfPatch,
    make_cohort,
    read_rows,
    results,
    run_serially,
    scan_file,
    write_rows,
)

from nodulemc.cohort.export import export
from nodulemc.cohort.local_engine import LocalEngine
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.cohort.summary import summary
from nodulemc.errors import CaseError, ConfigError
from nodulemc.evaluation.predictions import read_predictions
from nodulemc.grand_challenge.results import read_grand_challenge_results
from nodulemc.util.table_rows import TableRow


@pytest.fixture
def luna(tmp_path):
    return make_cohort(tmp_path / "luna", 4)


def test_csv_is_what_evaluate_reads(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "files")
    rows = read_rows(tmp_path / "files" / "predictions.csv")
    assert list(rows[0]) == [
        "AnnotationID", "label", "probability", "seed_1", "seed_2",
        "PatientID", "scan", "name", "CoordX", "CoordY", "CoordZ", "warnings",
    ]  # fmt: skip
    assert [(row["AnnotationID"], row["label"]) for row in rows] == [
        ("0_0", "0"), ("1_0", "1"), ("1_1", "0"), ("2_0", "0"), ("3_0", "1"), ("3_1", "0")
    ]  # fmt: skip
    expected = [p for predictions in results(tmp_path / "out").values() for p in predictions]
    for row, (_, probability, by_member, _) in zip(rows, expected, strict=True):
        assert float(row["probability"]) == probability
        assert (float(row["seed_1"]), float(row["seed_2"])) == by_member


def test_parquet_holds_the_same(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    for row, cells in zip(rows, read_rows(tmp_path / "out" / "predictions.csv"), strict=True):
        assert {name: "" if row[name] is None else str(row[name]) for name in row} == cells
    nodule, _, _, warnings = results(tmp_path / "out")[scan_file(3)][1]
    assert (rows[-1]["scan"], rows[-1]["name"]) == (scan_file(3), "3_1")
    assert (rows[-1]["CoordX"], rows[-1]["CoordY"], rows[-1]["CoordZ"]) == nodule.point
    assert rows[-1]["warnings"] == "; ".join(warnings)
    assert warnings


def test_patients_reach_the_evaluation(luna, tmp_path):
    """Without a table, whatever the AnnotationIDs look like."""
    rows = read_rows(luna / "table.csv")
    patients = ["p1" if row["SeriesInstanceUID"] in ("1.2.0", "1.2.3") else "p2" for row in rows]
    write_rows(
        luna / "table.csv", [*rows[0], "PatientID"], [[*r.values(), p] for r, p in zip(rows, patients, strict=True)]
    )
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out")
    for name in ("predictions.csv", "predictions.parquet"):
        predictions = read_predictions([tmp_path / "out" / name])
        assert predictions.patients_known
        assert [("p1", "p2")[k] for k in predictions.patients] == patients
        assert [cells["scan"] for cells in predictions.columns] == [
            f"ct/{row['SeriesInstanceUID']}.mha" for row in rows
        ]
    other = {
        name: TableRow(tmp_path, 1, {"AnnotationID": name, "label": "", "PatientID": ""}) for name in predictions.ids
    }
    assert read_predictions([tmp_path / "out" / name], other).patients.tolist() == predictions.patients.tolist()


def test_grand_challenge_json_of_each_scan(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out", json=True)
    assert json_files(tmp_path / "out") == [f"1.2.{k}.json" for k in range(4)]
    content = json.loads((tmp_path / "out" / "json" / "1.2.3.json").read_text())
    (first, p_first, *_), (second, p_second, *_) = results(tmp_path / "out")[scan_file(3)]
    assert content == {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": [
            {"name": "3_0", "point": list(first.point), "probability": p_first},
            {"name": "3_1", "point": list(second.point), "probability": p_second},
        ],
        "version": {"major": 1, "minor": 0},
    }
    assert len(read_grand_challenge_results(tmp_path / "out" / "json")) == 6


def test_names_in_points_files(luna, tmp_path):
    """They are each file's own, and unknown until it is read; an AnnotationID must stay what it is."""
    place = [-15, 26, -120]
    for file, names in (("a", ["N1", "N2"]), ("b", ["N1", None, "N3", "N3"])):
        points = [{"point": place} | ({"name": name} if name else {}) for name in names]
        (luna / f"{file}.json").write_text(json.dumps({"points": points}))
    rows = [(scan_file(0), "a.json", 1), (scan_file(1), "b.json", "")]
    run_serially(write_rows(luna / "m.csv", ("ct", "points", "label"), rows), tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["AnnotationID"] for row in rows] == [
        *(f"{scan_file(0)}#{k}" for k in (1, 2)), *(f"{scan_file(1)}#{k}" for k in (1, 2, 3, 4))
    ]  # fmt: skip
    assert [row["label"] for row in rows] == ["1", "1", "", "", "", ""]
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["N1", "N2", "N1", None, "N3", "N3"]


def test_line_breaks_in_names_stay_in_their_rows(luna, tmp_path):
    row = f'{scan_file(0)},"a\rb",-15,26,-120'
    (luna / "m.csv").write_text(f"ct,AnnotationID,CoordX,CoordY,CoordZ\n{row}\n", newline="")
    run_serially(luna / "m.csv", tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out")
    assert [row["AnnotationID"] for row in read_rows(tmp_path / "out" / "predictions.csv")] == ["a\rb"]


def test_json_files_of_scans_with_the_same_file_name(luna, tmp_path):
    (luna / "other").mkdir()
    (luna / scan_file(0)).rename(luna / "other" / "1.2.1.mha")
    rows = [("other/1.2.1.mha", -15, 26, -120), (scan_file(1), -15, 26, -120)]
    run_serially(write_rows(luna / "m.csv", ("ct", "x", "y", "z"), rows), tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out", json=True)
    assert len(list((tmp_path / "out" / "json").glob("1.2.1-*.json"))) == 2


def json_files(folder):
    return sorted(path.name for path in (folder / "json").glob("*.json"))


def test_json_files_are_those_of_the_scans_that_are_done(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out", json=True)
    stranger = tmp_path / "out" / "json" / "mine.json"
    stranger.touch()
    rows = read_rows(luna / "table.csv")[1:]
    write_rows(luna / "table.csv", rows[0], [row.values() for row in rows])
    (luna / scan_file(1)).write_bytes(b"nothing")
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out", json=True)
    assert json_files(tmp_path / "out") == ["1.2.2.json", "1.2.3.json", "mine.json"]


def test_a_damaged_list_of_json_files_removes_nothing(luna, tmp_path):
    run_serially(luna, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "out", json=True)
    (tmp_path / "out" / "json" / ".written").write_text('["../predictions.csv"]')
    with pytest.raises(CaseError, match="the list of exported files is damaged"):
        export(tmp_path / "out", tmp_path / "out", json=True)
    assert (tmp_path / "out" / "predictions.csv").exists()


def test_json_files_have_the_same_names_while_the_cohort_is_scored(luna, tmp_path):
    (luna / "other").mkdir()
    (luna / "other" / "1.2.1.mha").write_bytes((luna / scan_file(0)).read_bytes())
    rows = [("other/1.2.1.mha", -15, 26, -120), (scan_file(1), -15, 26, -120)]
    manifest = write_rows(luna / "m.csv", ("ct", "x", "y", "z"), rows)
    run_serially(manifest, tmp_path / "out", shard=(1, 2))
    export(tmp_path / "out", tmp_path / "out", json=True)
    (early,) = json_files(tmp_path / "out")
    run_serially(manifest, tmp_path / "out", shard=(2, 2))
    export(tmp_path / "out", tmp_path / "out", json=True)
    assert early in json_files(tmp_path / "out")
    assert len(json_files(tmp_path / "out")) == 2


def test_failures(luna, tmp_path):
    (luna / scan_file(2)).unlink()
    run_serially(luna, tmp_path / "out")
    state = export(tmp_path / "out", tmp_path / "out")
    (row,) = read_rows(tmp_path / "out" / "failures.csv")
    assert row["scan"] == scan_file(2)
    assert row["error"].startswith("cannot read (No such file or directory)")
    assert len(state.failed) == 1
    assert len(read_rows(tmp_path / "out" / "predictions.csv")) == 5


def test_a_finished_scan_without_nodules(luna, tmp_path):
    (luna / "none.json").write_text('{"points": []}')
    run_serially(write_rows(luna / "m.csv", ("ct", "points"), [(scan_file(0), "none.json")]), tmp_path / "out")
    state = export(tmp_path / "out", tmp_path / "out")
    assert (len(state.done), state.pending) == (1, 0)
    assert read_rows(tmp_path / "out" / "predictions.csv") == []


def test_nothing_there(tmp_path):
    with pytest.raises(ConfigError, match="no cohort"):
        export(tmp_path / "typo", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_calibrated_results_say_so(luna, tmp_path):
    platt = {"method": "platt", "training_prevalence": 0.5, "fitted_prevalence": 0.1, "prevalence": 0.09, "slope": 1.0,
             "intercept": 0.0}  # fmt: skip
    run_serially(luna, tmp_path / "out", ensemble=replace(ENSEMBLE, vote_weights=(0.25, 0.75), calibration=platt))
    state = export(tmp_path / "out", tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    for row in rows:
        expected = 0.25 * float(row["seed_1"]) + 0.75 * float(row["seed_2"])
        assert float(row["uncalibrated"]) == pytest.approx(expected)
        assert row["calibration"] == "platt, for a prevalence of 0.09"
    stored = pyarrow.parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [str(row["uncalibrated"]) for row in stored] == [row["uncalibrated"] for row in rows]
    assert "calibrated: platt, for a prevalence of 0.09" in summary(state).splitlines()


class Telling(MeanOfPatch):
    """Tells an attribute, too."""

    def findings(self, patches):
        by_member = self.member_probabilities(patches)
        return by_member, 1 + 4 * by_member[:, 1:]


def test_attributes_of_an_ensemble_that_tells_them(luna, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    ensemble = replace(ENSEMBLE, attributes=("texture",))
    run_cohort(Task(read_cohort_manifest(luna), luna, output, ensemble), LocalEngine(Telling, 1))
    export(output, output)
    rows = read_rows(output / "predictions.csv")
    assert list(rows[0])[-2:] == ["warnings", "attribute_texture"]
    assert all(float(row["attribute_texture"]) == 1 + 4 * float(row["seed_2"]) for row in rows)
    stored = pyarrow.parquet.read_table(output / "predictions.parquet")
    assert stored["attribute_texture"].to_pylist() == [float(row["attribute_texture"]) for row in rows]
    run_serially(luna, tmp_path / "plain")
    export(tmp_path / "plain", tmp_path / "plain")
    assert list(read_rows(tmp_path / "plain" / "predictions.csv")[0]) == list(rows[0])[:-1]
