import csv
import json
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from training.luna25_files import table_row, write_table

from nodulemc.cli import main
from nodulemc.data.nodule_table import read_table
from nodulemc.data.split import Groups, draw_groups, given_groups, split_folds, split_groups
from nodulemc.errors import TableError


def rows_of(*patients: tuple[int, int]) -> list[dict]:
    """Rows of patients, each given by the numbers of benign and malignant samples."""
    return [
        {"PatientID": str(patient), "AnnotationID": f"{patient}_{k}", "label": int(k >= benign)}
        for patient, (benign, malignant) in enumerate(patients)
        for k in range(benign + malignant)
    ]


@pytest.fixture
def luna25(shared_data: Path) -> Path:
    return shared_data / "luna25"


def facts(path: Path) -> dict[str, tuple[str, int]]:
    """AnnotationID -> PatientID and label, read without the package."""
    with path.open() as file:
        return {row["AnnotationID"]: (row["PatientID"], int(row["label"])) for row in csv.DictReader(file)}


def malignant(names, table: dict[str, tuple[str, int]]) -> int:
    return sum(table[name][1] for name in names)


def patients(names, table: dict[str, tuple[str, int]]) -> set[str]:
    return {table[name][0] for name in names}


def with_undecided(rows: list[dict]) -> list[dict]:
    """The rows, an undecided sample more for each patient with an even number, and 20 patients with undecided only."""
    more = [patient for patient in dict.fromkeys(row["PatientID"] for row in rows) if int(patient) % 2 == 0]
    more += [f"{1000 + k // 2}" for k in range(40)]
    extra = [{"PatientID": p, "AnnotationID": f"{p}_u{k}", "label": None} for k, p in enumerate(more)]
    return [*extra[::2], *rows, *extra[1::2]]


def run_split(*arguments: object) -> int:
    return main(["split", *map(str, arguments)])


@pytest.mark.heavy
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("seed", [2000, 2001, 7])
def test_real_table(published: bool, seed: int, luna25: Path, tmp_path: Path, capsys):
    output = tmp_path / "new" / "split.json"
    groups = ["--group-a", luna25 / "valid_1-1.csv", "--group-b", luna25 / "train_other.csv"] if published else []
    assert run_split(luna25 / "luna25_training.csv", "--seed", seed, "--output", output, *groups) == 0
    shown = capsys.readouterr().out
    assert "samples: 6157 samples (554 malignant) of 2117 patients" in shown
    assert "group A: 1108 samples (554 malignant)" in shown
    assert "group B: 5049 samples (0 malignant)" in shown
    assert shown.endswith(f"\nwritten: {output}\n")
    split = json.loads(output.read_text())
    assert list(split) == ["train", "validation"]
    table = facts(luna25 / "luna25_training.csv")
    assert Counter(split["train"] + split["validation"]) == Counter(table.keys())
    assert len(split["validation"]) == 200
    assert malignant(split["validation"], table) == 100
    assert not patients(split["train"], table) & patients(split["validation"], table)
    if published:
        assert set(split["validation"]) <= facts(luna25 / "valid_1-1.csv").keys()


def test_published_groups_share_no_patient(luna25: Path):
    a, b = facts(luna25 / "valid_1-1.csv"), facts(luna25 / "train_other.csv")
    assert (len(a), malignant(a, a), len(b), malignant(b, b)) == (1108, 554, 5049, 0)
    assert not patients(a, a) & patients(b, b)


@pytest.mark.heavy
def test_folds_of_the_real_table(luna25: Path, tmp_path: Path):
    output = tmp_path / "split.json"
    assert run_split(luna25 / "luna25_training.csv", "--scheme", "kfold", "--seed", 5, "--output", output) == 0
    folds = json.loads(output.read_text())["folds"]
    table = facts(luna25 / "luna25_training.csv")
    assert len(folds) == 5
    assert Counter(name for fold in folds for name in fold) == Counter(table.keys())
    for k, fold in enumerate(folds):
        others = [name for other in folds[:k] + folds[k + 1 :] for name in other]
        assert not patients(fold, table) & patients(others, table)
        assert abs(malignant(fold, table) - 554 / 5) < 3
        assert abs(len(fold) - 6157 / 5) < 15


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["nodulemc", "kfold"])
def test_seed_alone_decides(scheme: str, luna25: Path, tmp_path: Path):
    rows = read_table(luna25 / "luna25_training.csv").rows
    shuffled = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]

    def split(rows: list[dict], seed: int) -> list[set[str]]:
        if scheme == "kfold":
            return [set(fold) for fold in split_folds(rows, 5, seed, "table")["folds"]]
        return [set(side) for side in split_groups(draw_groups(rows, seed), 200, seed, "table").values()]

    assert split(rows, 1) == split(shuffled, 1)
    assert split(rows, 1) != split(rows, 2)


def test_group_a_takes_patients_whole():
    """Patients 0 and 1 have malignant samples, so their benign ones come along; 3 more benign ones fit exactly."""
    rows = rows_of((1, 3), (0, 1), *[(2, 0)] * 4, *[(1, 0)] * 4)
    for seed in range(20):
        groups = draw_groups(rows, seed)
        labels = Counter(row["label"] for row in groups.a)
        assert labels == {0: 4, 1: 4}
        in_a = {row["PatientID"] for row in groups.a}
        assert {"0", "1"} <= in_a
        assert not in_a & {row["PatientID"] for row in groups.b}
        assert len(groups.a) + len(groups.b) == len(rows)


def test_group_a_where_malignant_patients_have_more_benign_samples():
    groups = draw_groups(rows_of((5, 1), (1, 0), (0, 2)), 0)
    assert {row["PatientID"] for row in groups.a} == {"0", "2"}


def test_validation_never_has_more_samples_than_asked_for():
    """With patients of three samples each, 10 cannot be reached; 9 is as close as patients allow."""
    a = rows_of(*[(3, 0)] * 10, *[(0, 3)] * 10)
    for seed in range(10):
        split = split_groups(Groups(a, []), 13, seed, "table")
        assert len(split["validation"]) == 12
        assert len(split["train"]) == 48


def test_validation_keeps_the_classes_of_group_a():
    """30 benign and 10 malignant samples; patients with both count for both."""
    a = rows_of(*[(2, 0)] * 10, *[(1, 1)] * 10)
    for seed in range(10):
        split = split_groups(Groups(a, []), 20, seed, "table")
        chosen = [row["label"] for row in a if row["AnnotationID"] in split["validation"]]
        assert Counter(chosen) == {0: 15, 1: 5}


def test_patients_in_both_groups_train():
    """Patients 0 to 3 have samples in both groups: none of theirs may validate, and none is lost."""
    rows = rows_of(*[(3, 0)] * 4, *[(2, 0)] * 6, *[(0, 1)] * 12)
    in_both = {str(k) for k in range(4)}
    group_a = [row["AnnotationID"] for row in rows if row["PatientID"] not in in_both or row["AnnotationID"][-1] == "0"]
    group_b = [row["AnnotationID"] for row in rows if row["AnnotationID"] not in group_a]
    for seed in range(10):
        split = split_groups(given_groups(rows, group_a, group_b, "table"), 14, seed, "table")
        assert Counter(split["train"] + split["validation"]) == Counter(row["AnnotationID"] for row in rows)
        assert not {name.split("_")[0] for name in split["validation"]} & in_both
        assert len(split["validation"]) == 14


def test_groups_must_divide_the_table():
    rows = rows_of((1, 1), (1, 1))
    groups = given_groups(rows, ["0_0", "0_1", "gone"], ["1_0", "1_1"], "table")
    assert [len(groups.a), len(groups.b)] == [2, 2]
    with pytest.raises(TableError, match="1_1 is in neither group: table"):
        given_groups(rows, ["0_0", "0_1"], ["1_0"], "table")
    with pytest.raises(TableError, match="0_1 is in both groups: table"):
        given_groups(rows, ["0_0", "0_1"], ["0_1", "1_0", "1_1"], "table")


@pytest.mark.parametrize(
    ("rows", "samples", "side"),
    [
        (rows_of(*[(1, 0)] * 9, *[(0, 1)] * 9), 18, "training"),
        (rows_of(*[(4, 0)] * 9, *[(0, 4)] * 9), 6, "validation"),
        (rows_of(*[(1, 0)] * 9), 4, "validation"),
        ([], 4, "validation"),
    ],
)
def test_impossible_validation(rows: list[dict], samples: int, side: str):
    with pytest.raises(TableError, match=f"with {samples} validation samples the {side} side has .* lacks a class"):
        split_groups(Groups(rows, []), samples, 0, "table")


def test_a_side_of_one_sample_is_told_in_the_singular():
    with pytest.raises(TableError, match="the training side has 1 sample and lacks a class"):
        split_groups(draw_groups(rows_of((1, 0)), 0), 0, 0, "table")


def test_more_folds_than_patients_of_a_class():
    rows = rows_of(*[(1, 0)] * 9, *[(0, 2)] * 3)
    assert len(split_folds(rows, 3, 0, "table")["folds"]) == 3
    with pytest.raises(TableError, match="4 folds, but one class has 3 patients"):
        split_folds(rows, 4, 0, "table")
    with pytest.raises(TableError, match="one class has 0 patients"):
        split_folds(rows_of((3, 0), (1, 0)), 2, 0, "table")


def test_without_validation_everything_trains(tmp_path: Path):
    table = write_table(tmp_path / "t.csv", [table_row(k, f"1.{k}", 1, (0, 0, 0), k % 2) for k in range(10)])
    assert run_split(table, "--output", tmp_path / "s.json", "--seed", "1", "--validation", "0") == 0
    split = json.loads((tmp_path / "s.json").read_text())
    assert split["validation"] == []
    assert Counter(split["train"]) == Counter(facts(table).keys())
    with pytest.raises(TableError, match="with 0 validation samples the training side has 3 samples and lacks a class"):
        split_groups(draw_groups(rows_of((3, 0)), 0), 0, 0, "table")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "error: --seed -1"),
        (["--seed", "1", "--validation", "1"], "error: --validation 1"),
        (["--seed", "1", "--scheme", "kfold", "--folds", "1"], "error: --folds 1"),
        (["--seed", "1", "--group-a", "a.csv"], "error: one of --group-a and --group-b"),
        (["--seed", "1", "--scheme", "kfold", "--group-a", "a", "--group-b", "b"], "error: --group-a with --scheme"),
        (["--seed", "1"], "error: with 200 validation samples"),
    ],
)
def test_errors_end_the_command_with_code_2(arguments: list[str], message: str, tmp_path: Path, capsys):
    table = write_table(tmp_path / "t.csv", [table_row(k, f"1.{k}", 1, (0, 0, 0), k % 2) for k in range(10)])
    assert run_split(table, "--output", tmp_path / "s.json", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


def test_undecided_samples_go_with_their_patient():
    """Groups, validation and folds of the others are what they are without them."""
    rows = rows_of(*[(2, 0)] * 30, *[(0, 1)] * 12, *[(1, 2)] * 5)
    more = with_undecided(rows)
    patient_of = {row["AnnotationID"]: row["PatientID"] for row in more}
    labelled = {row["AnnotationID"] for row in rows}
    for seed in range(5):
        plain, groups = draw_groups(rows, seed), draw_groups(more, seed)
        assert plain.a == [row for row in groups.a if row["label"] is not None]
        split = split_groups(groups, 16, seed, "table")
        assert Counter(split["train"] + split["validation"]) == Counter(patient_of.keys())
        assert split_groups(plain, 16, seed, "table") == {
            side: [name for name in names if name in labelled] for side, names in split.items()
        }
        sides = [{patient_of[name] for name in names} for names in split.values()]
        assert not sides[0] & sides[1]
        assert {str(k) for k in range(1000, 1020)} <= sides[0]

        folds = split_folds(more, 3, seed, "table")["folds"]
        assert Counter(chain(*folds)) == Counter(patient_of.keys())
        known = [[name for name in fold if name in labelled] for fold in folds]
        assert known == split_folds(rows, 3, seed, "table")["folds"]
        patients_of = [{patient_of[name] for name in fold} for fold in folds]
        assert sum(map(len, patients_of)) == len(set(patient_of.values()))
        assert sorted(sum(int(p) >= 1000 for p in fold) for fold in patients_of) == [6, 7, 7]
    order = [row["AnnotationID"] for row in more]
    assert all(fold == sorted(fold, key=order.index) for fold in folds)


def test_lidc_is_split_with_its_undecided_nodules(shared_data: Path, tmp_path: Path, capsys):
    table, output = shared_data / "lidc" / "slabs" / "table.csv", tmp_path / "s.json"
    assert run_split(table, "--seed", "1", "--scheme", "kfold", "--output", output) == 0
    shown = capsys.readouterr().out
    assert "samples: 2009 samples (555 malignant, 253 undecided) of 769 patients" in shown
    assert sum(map(len, json.loads(output.read_text())["folds"])) == 2009
    assert run_split(table, "--seed", "1", "--output", output) == 0
    assert "(0 malignant, 253 undecided)" not in capsys.readouterr().out
