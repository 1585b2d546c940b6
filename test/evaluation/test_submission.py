import json

import numpy as np
import pytest
from evaluation.samples import multiple_points, write_csv

from nodulemc.errors import TableError
from nodulemc.evaluation.metrics import evaluate
from nodulemc.evaluation.predictions import read_table
from nodulemc.evaluation.submission import read_submission

NAME = "lung-nodule-malginancy-likelihoods.json"
LABELS = {"a": 1, "b": 0, "c": 1, "d": 0, "e": 0}


@pytest.fixture
def table(tmp_path):
    return read_table(write_csv(tmp_path / "t.csv", ["AnnotationID", "label"], list(LABELS.items())))


def write_jobs(folder, *jobs):
    for k, points in enumerate(jobs):
        path = folder / f"job{k}" / "output" / NAME
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(multiple_points(points)))
    return folder


def test_a_complete_folder(tmp_path, table):
    folder = write_jobs(tmp_path / "in", {"c": 0.7, "a": 0.9}, {"b": 0.1, "d": 0.2, "e": 0.8})
    submission = read_submission([folder], table)
    assert submission.predictions.ids == ["c", "a", "b", "d", "e"]
    assert submission.predictions.labels.tolist() == [1, 1, 0, 0, 0]
    assert submission.predictions.probabilities.tolist() == [0.7, 0.9, 0.1, 0.2, 0.8]
    assert submission.problems == {"omitted": [], "duplicate": [], "unknown": []}


def test_what_does_not_match_is_reported(tmp_path, table):
    jobs = [[("c", 0.7), ("x", 0.5)], [("b", 0.1), ("c", 0.2), ("y", 0.5), ("d", 0.3)]]
    submission = read_submission([write_jobs(tmp_path / "in", *jobs)], table)
    assert submission.problems == {"omitted": ["a", "e"], "duplicate": ["c"], "unknown": ["x", "y"]}
    assert submission.predictions.ids == ["c", "b", "d"]
    assert submission.predictions.probabilities.tolist() == [0.7, 0.1, 0.3]
    metrics = evaluate(submission, 50).metrics
    assert metrics["matching"] == submission.problems
    assert metrics["auc"] == 1
    # The challenge counts both predictions of c: malignant 0.7 and 0.2 against benign 0.1 and 0.3.
    assert metrics["challenge"]["AUC"] == pytest.approx(3 / 4)


def test_nodules_without_a_label_are_neither_omitted_nor_listed(tmp_path, caplog):
    rows = [*LABELS.items(), ("f", ""), ("g", "")]
    table = read_table(write_csv(tmp_path / "t.csv", ["AnnotationID", "label"], rows))
    points = {"c": 0.7, "f": 0.3, "a": 0.9, "b": 0.1, "d": 0.2, "e": 0.8}
    submission = read_submission([write_jobs(tmp_path / "in", points)], table)
    assert submission.predictions.ids == ["c", "a", "b", "d", "e"]
    assert submission.listed.tolist() == [0, 1, 2, 3, 4]
    assert submission.problems == {"omitted": [], "duplicate": [], "unknown": []}
    assert caplog.messages == [f"{tmp_path}/in: 1 of 6 nodules have no label; left out"]
    path = write_csv(tmp_path / "p.csv", ["AnnotationID", "probability"], list(points.items()))
    assert read_submission([path], table).omitted == []


def test_json_files_right_in_the_folder(tmp_path, table):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "case1.json").write_text(json.dumps(multiple_points({"a": 0.9, "b": 0.1})))
    (folder / "predictions.json").write_text("[]")
    (folder / "._case1.json").write_bytes(bytes(100))  # file attributes that macOS leaves
    assert read_submission([folder], table).predictions.ids == ["a", "b"]


def test_csv_with_fewer_nodules_than_the_table(tmp_path, table):
    path = write_csv(tmp_path / "p.csv", ["AnnotationID", "probability"], [["a", 0.9], ["d", 0.1]])
    submission = read_submission([path], table)
    assert submission.omitted == ["b", "c", "e"]
    assert submission.listed.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("point", "what"),
    [
        ({"name": "a", "probability": 1.5}, r"probability is 1\.5: .*point 2"),
        ({"name": "a", "probability": None}, "probability is None"),
        ({"name": "a", "probability": True}, "probability is True"),
        ({"name": "a"}, "probability is None"),
        ({"probability": 0.5}, "name is None"),
        ("a", "name is None"),
    ],
)
def test_a_malformed_point(tmp_path, table, point, what):
    content = multiple_points({"b": 0.1})
    content["points"].append(point)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / NAME).write_text(json.dumps(content))
    with pytest.raises(TableError, match=what):
        read_submission([tmp_path / "in"], table)


def test_folders_that_cannot_be_used(tmp_path, table):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TableError, match="no results"):
        read_submission([empty], table)
    with pytest.raises(TableError, match="no labels"):
        read_submission([empty], None)
    with pytest.raises(TableError, match="2 inputs, with a folder among them"):
        read_submission([empty, tmp_path / "p.csv"], table)
    with pytest.raises(TableError, match="none of 1 nodule is in the table"):
        read_submission([write_jobs(tmp_path / "in", {"x": 0.5})], table)
    (empty / NAME).write_text("[]")
    with pytest.raises(TableError, match="no list of points"):
        read_submission([empty], table)


def test_one_class_in_a_folder(tmp_path, table):
    with pytest.raises(TableError, match="no nodule of 2 has label 0"):
        read_submission([write_jobs(tmp_path / "in", {"a": 0.5, "c": 0.2})], table)


def test_order_of_listed_predictions(tmp_path, table):
    jobs = [[("e", 0.2), ("a", 0.7)], [("a", 0.3)]]
    submission = read_submission([write_jobs(tmp_path / "in", *jobs)], table)
    np.testing.assert_array_equal(submission.listed, [0, 1, 1])
    np.testing.assert_array_equal(submission.listed_probabilities, [0.2, 0.7, 0.3])
