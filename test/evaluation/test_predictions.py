import numpy as np
import pytest
from evaluation.samples import make_predictions, write_csv, write_predictions, write_table

from nodulemc.errors import FileError, TableError
from nodulemc.evaluation.predictions import read_predictions, read_table

HEADER = ["AnnotationID", "label", "probability"]
GOOD = [["100001_1_19990102", 1, 0.9], ["100001_2_19990102", 0, 0.2], ["100002_1_19990102", 0, 0.4]]


def refusal(tmp_path, rows, header=HEADER, table=None):
    path = write_csv(tmp_path / "p.csv", header, rows)
    with pytest.raises(TableError) as caught:
        read_predictions([path], read_table(write_csv(tmp_path / "t.csv", *table)) if table else None)
    return str(caught.value)


def test_columns_are_read_back(tmp_path):
    sample = make_predictions(seeds=2)
    table = read_table(write_table(tmp_path / "t.csv", sample))
    read = read_predictions([write_predictions(tmp_path / "p.csv", sample)], table)
    assert read.ids == sample.ids
    assert read.folds == sample.folds
    assert (read.labels == sample.labels).all()
    assert (read.probabilities == sample.probabilities).all()
    assert (read.patients == sample.patients).all()
    assert list(read.seeds) == ["seed_0", "seed_1"]
    assert (read.seeds["seed_1"] == sample.seeds["seed_1"]).all()
    assert read.columns[7]["Age_at_StudyDate"] == sample.columns[7]["Age_at_StudyDate"]


def test_files_of_several_folds_are_joined(tmp_path):
    paths = [write_csv(tmp_path / f"{k}.csv", HEADER, rows) for k, rows in enumerate([GOOD[:1], GOOD[1:]])]
    assert read_predictions(paths).ids == [row[0] for row in GOOD]


def test_patients_of_luna25_are_in_the_annotation_id(tmp_path):
    read = read_predictions([write_csv(tmp_path / "p.csv", HEADER, GOOD)])
    assert read.patients.tolist() == [0, 0, 1]
    assert read.patients_known


def test_without_patients_each_nodule_is_its_own(tmp_path):
    read = read_predictions([write_csv(tmp_path / "p.csv", HEADER, [["a", 0, 0.1], ["b", 1, 0.2]])])
    assert read.patients.tolist() == [0, 1]
    assert not read.patients_known


def test_labels_come_from_the_table(tmp_path):
    table = read_table(write_csv(tmp_path / "t.csv", ["AnnotationID", "label"], [row[:2] for row in GOOD]))
    path = write_csv(tmp_path / "p.csv", ["AnnotationID", "probability"], [[row[0], row[2]] for row in GOOD])
    assert read_predictions([path], table).labels.tolist() == [1, 0, 0]


def test_taking_a_part_keeps_rows_together():
    sample = make_predictions(seeds=1)
    part = sample.take(np.array([5, 3]))
    assert part.ids == [sample.ids[5], sample.ids[3]]
    assert part.seeds["seed_0"].tolist() == sample.seeds["seed_0"][[5, 3]].tolist()
    assert part.folds == [sample.folds[5], sample.folds[3]]


@pytest.mark.parametrize("value", ["nan", "1.2", "-0.1", "inf", "", "high", "0,5"])
def test_bad_probability(tmp_path, value):
    rows = [*GOOD, ["100003_1_19990102", 0, value], ["100004_1_19990102", 0, value]]
    assert refusal(tmp_path, rows) == f"probability is {value!r}: {tmp_path}/p.csv, lines 5, 6: give numbers in 0…1"


def test_bad_probability_of_a_seed(tmp_path):
    rows = [[*row, 0.5] for row in GOOD[:2]] + [[*GOOD[2], 1.5]]
    assert "seed_7 is '1.5'" in refusal(tmp_path, rows, [*HEADER, "seed_7"])


def test_many_bad_rows_are_counted(tmp_path):
    message = refusal(tmp_path, [[f"n{k}", k % 2, 2] for k in range(12)])
    assert "lines 2, 3, 4, 5, 6 and 7 more" in message


@pytest.mark.parametrize("label", [0, 1])
def test_one_class(tmp_path, label):
    message = refusal(tmp_path, [["a", label, 0.1], ["b", label, 0.3]])
    assert message.startswith(f"no nodule of 2 has label {1 - label}: ")


def test_duplicate(tmp_path):
    message = refusal(tmp_path, [*GOOD, GOOD[1]])
    assert message.startswith(f"duplicate AnnotationID 100001_2_19990102: {tmp_path}/p.csv, line 5: ")
    assert "line 3 has it, too" in message


def test_duplicate_in_another_file(tmp_path):
    paths = [write_csv(tmp_path / f"{k}.csv", HEADER, GOOD) for k in range(2)]
    with pytest.raises(TableError, match=r"1\.csv, line 2: .*0\.csv, line 2 has it"):
        read_predictions(paths)


def test_unmatched(tmp_path):
    table = (["AnnotationID", "label"], [row[:2] for row in GOOD[1:]])
    message = refusal(tmp_path, GOOD, table=table)
    assert message.startswith("AnnotationID is '100001_1_19990102': ")
    assert message.endswith(": the table has no such nodule; give predictions and table of one study")


def test_label_that_differs_from_the_tables(tmp_path):
    table = (["AnnotationID", "label"], [[GOOD[0][0], 0], *[row[:2] for row in GOOD[1:]]])
    assert f"label is '1': {tmp_path}/p.csv, line 2" in refusal(tmp_path, GOOD, table=table)


def test_nodules_without_a_label_are_left_out(tmp_path, caplog):
    header, rows = [*HEADER, "seed_1", "fold"], [[*row, 0.5, "f"] for row in (*GOOD, ["d", "", 0.5], ["e", "", 0.5])]
    read = read_predictions([write_csv(tmp_path / "p.csv", header, rows)])
    assert (len(read), read.labels.tolist(), len(read.seeds["seed_1"]), len(read.folds)) == (3, [1, 0, 0], 3, 3)
    assert caplog.messages == [f"{tmp_path}/p.csv: 2 of 5 nodules have no label; left out"]


def test_a_label_that_the_table_does_not_have(tmp_path):
    table = read_table(write_csv(tmp_path / "t.csv", HEADER[:2], [*(row[:2] for row in GOOD), ["d", ""], ["e", ""]]))
    path = write_csv(tmp_path / "p.csv", HEADER, [*GOOD, ["d", 1, 0.5], ["e", "", 0.5]])
    assert read_predictions([path], table).ids == [*(row[0] for row in GOOD), "d"]


def test_no_label_at_all(tmp_path):
    message = refusal(tmp_path, [["a", "", 0.1], ["b", "", 0.3]])
    remedy = "give malignant and benign nodules, with labels in a column label or a table"
    assert message == f"no nodule has a label: {tmp_path}/p.csv: {remedy}"


def test_labels_written_as_decimals(tmp_path):
    decimals = [[row[0], f"{row[1]}.0", row[2]] for row in GOOD]
    table = read_table(write_csv(tmp_path / "t.csv", HEADER[:2], [row[:2] for row in decimals]))
    for rows in (GOOD, decimals):
        path = write_csv(tmp_path / "p.csv", HEADER, rows)
        assert read_predictions([path], table).labels.tolist() == [1, 0, 0]
    assert read_predictions([path]).labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize("label", ["2", "malignant", "nan"])
def test_bad_label(tmp_path, label):
    assert f"label is {label!r}" in refusal(tmp_path, [*GOOD, ["d", label, 0.5]])


def test_missing_columns(tmp_path):
    message = refusal(tmp_path, [["a", 0.1]], ["AnnotationID", "risk"])
    assert message.startswith("missing columns label, probability; found AnnotationID, risk: ")


@pytest.mark.parametrize(
    ("header", "rows", "what"),
    [
        (HEADER, [], "no rows"),
        ([*HEADER, "label"], [[*row, 0] for row in GOOD], "repeated column 'label'"),
        (HEADER, [*GOOD, ["a", 1]], "2 cells: .*line 5"),
        (HEADER, [*GOOD, ["", 1, 0.2]], "AnnotationID is ''"),
        ([*HEADER, "PatientID"], [[*GOOD[0], "a"], [*GOOD[1], ""]], "no PatientID for 100001_2_19990102"),
    ],
)
def test_malformed(tmp_path, header, rows, what):
    path = write_csv(tmp_path / "p.csv", header, rows)
    with pytest.raises(TableError, match=what):
        read_predictions([path])


def test_unreadable(tmp_path):
    with pytest.raises(FileError, match="cannot read the file"):
        read_predictions([tmp_path / "none.csv"])
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(TableError, match="cannot read the table"):
        read_predictions([binary])
