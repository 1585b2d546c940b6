"""Attributes against scipy, on copied rows where a bootstrap counts some of them several times."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from evaluation.samples import write_csv
from scipy.stats import spearmanr

from nodulemc.cli import main
from nodulemc.errors import TableError
from nodulemc.evaluation.attributes import attribute_figures, rank_correlation
from nodulemc.evaluation.bootstrap import PatientBootstrap
from nodulemc.evaluation.predictions import read_table
from nodulemc.evaluation.submission import read_submission
from nodulemc.util.table_rows import read_rows

NODULES = 60


def test_rank_correlation_of_copied_rows():
    random = np.random.default_rng(0)
    first, second = random.integers(0, 9, 40) / 2, random.normal(size=40)
    weights = random.integers(0, 4, (5, 40))
    found = rank_correlation(first, second, weights)
    expected = [spearmanr(first.repeat(copies), second.repeat(copies))[0] for copies in weights]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(first, second, weights / 7), expected, atol=1e-12)
    assert np.isnan(rank_correlation(np.full(40, 1 / 3), second, weights)).all()
    assert np.isnan(rank_correlation(first, second, np.eye(40)[:1])).all()


@pytest.fixture
def study(tmp_path: Path):
    """Predictions and a table: 60 nodules of 25 patients, each with up to four readers, the first ten undecided."""
    random = np.random.default_rng(1)
    patients = random.integers(0, 25, NODULES)
    readings = [random.integers(1, 6, count).tolist() for count in random.integers(1, 5, NODULES)]
    means = [np.mean(own) for own in readings]
    found = np.clip(means + random.normal(0, 0.7, NODULES), 1, 5)
    labels = ["" if k < 10 else k % 2 for k in range(NODULES)]
    ids = [f"n{k}" for k in range(NODULES)]
    header = ["AnnotationID", "label", "probability", "attribute_texture", "attribute_margin"]
    rows = [(name, "", 0.1 + 0.01 * k, value, "") for k, (name, value) in enumerate(zip(ids, found, strict=True))]
    predictions = write_csv(tmp_path / "p.csv", header, rows)
    header = ["AnnotationID", "PatientID", "label", "readers", "texture", *(f"texture_reader{k}" for k in range(1, 5))]
    rows = [
        (name, f"p{patient}", label, len(own), "" if k == 5 else mean, *own, *[""] * (4 - len(own)))
        for k, (name, patient, label, own, mean) in enumerate(zip(ids, patients, labels, readings, means, strict=True))
    ]
    table = write_csv(tmp_path / "t.csv", header, rows)
    known = [k for k in range(NODULES) if k != 5]
    return predictions, table, patients, found, means, readings, known


def test_figures_and_their_intervals(study):
    predictions, table, patients, found, means, readings, known = study
    figures = attribute_figures(read_rows(predictions, ()), read_table(table), 50)
    assert list(figures) == ["texture"]
    ours, readers = figures["texture"], figures["texture"]["readers"]
    truth = np.array(means)
    assert ours["nodules"] == NODULES - 1
    assert ours["spearman"] == pytest.approx(spearmanr(found[known], truth[known])[0])
    assert ours["mae"] == pytest.approx(np.abs(found - truth)[known].mean())
    rounded = [round(value) for value in found[known].tolist()]
    assert ours["whole"]["spearman"] == pytest.approx(spearmanr(rounded, truth[known])[0])
    assert ours["whole"]["mae"] == pytest.approx(np.abs(rounded - truth[known]).mean())

    twos = [[abs(a - b) for a, b in combinations(readings[k], 2)] for k in known if len(readings[k]) > 1]
    assert readers["nodules"] == len(twos)
    assert readers["mae"] == pytest.approx(np.mean([np.mean(own) for own in twos]))
    # Each nodule counts once: 12 copies shared by its 2, 6 or 12 ordered pairs.
    pairs = [
        (own[i], own[j])
        for own in (readings[k] for k in known)
        for i in range(len(own))
        for j in range(len(own))
        if i != j
        for _ in range(12 // (len(own) * (len(own) - 1)))
    ]
    assert readers["spearman"] == pytest.approx(spearmanr(*zip(*pairs, strict=True))[0])

    _, numbers = np.unique([f"p{k}" for k in patients], return_inverse=True)
    copies = np.concatenate(list(PatientBootstrap(numbers, 50).weights()))[:, known]
    drawn = [spearmanr(found[known].repeat(row), truth[known].repeat(row))[0] for row in copies]
    assert ours["spearman_ci95"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    errors = [np.abs(found - truth)[known].repeat(row).mean() for row in copies]
    assert ours["mae_ci95"] == pytest.approx(np.percentile(errors, [2.5, 97.5]))
    assert readers["spearman_ci95"][0] < readers["spearman"] < readers["spearman_ci95"][1]


def test_evaluate_shows_them(study, tmp_path, capsys, caplog):
    predictions, table, *_ = study
    arguments = ["--table", str(table), "--bootstrap", "20", "--output", str(tmp_path)]
    assert main(["evaluate", str(predictions), *arguments]) == 0
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["nodules"] == NODULES - 10
    ours = told["attributes"]["texture"]
    assert ours["nodules"] == NODULES - 1
    line = f"texture, rank correlation       {ours['spearman']:.3f}, mean error {ours['mae']:.3f}; in whole numbers "
    assert line in capsys.readouterr().out
    assert f"10 of {NODULES} nodules have no label; left out" in caplog.text
    report = (tmp_path / "report.html").read_text()
    assert f"<td>texture</td><td>59</td><td>{ours['spearman']:.3f}</td>" in report
    assert "<td>texture, between two readers</td>" in report


def test_predictions_are_read_once(study, tmp_path, monkeypatch):
    predictions, table, *_ = study
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path) or real(path, *a, **k))
    assert (
        main(["evaluate", str(predictions), "--table", str(table), "--bootstrap", "9", "--output", str(tmp_path)]) == 0
    )
    assert opened.count(predictions) == opened.count(table) == 1


def test_a_folder_of_detailed_results(study, tmp_path):
    """What `predict` writes as JSON has the same figures as what `cohort` writes as CSV."""
    predictions, table, *_ = study
    rows = read_rows(predictions, ())
    points = [
        {"name": row.cells["AnnotationID"], "probability": float(row.cells["probability"]),
         "attributes": {"texture": float(row.cells["attribute_texture"]), "other": "?"}}
        for row in rows
    ]  # fmt: skip
    content = {"points": points, "ensemble": {"sha256": "0" * 64}, "trained_on": "toys"}
    path = tmp_path / "results" / "case.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    submission = read_submission([path.parent], read_table(table))
    figures = attribute_figures(submission.rows, read_table(table), 20)
    assert figures == attribute_figures(rows, read_table(table), 20)

    # Grand-Challenge's files may hold anything under this name; of ours a rating is on its scale.
    points[3]["attributes"]["texture"] = 5.5
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=r"texture is 5\.5: .*case\.json, point 4: give a number from 1 to 5"):
        read_submission([path.parent], read_table(table))
    del content["ensemble"]
    path.write_text(json.dumps(content))
    submission = read_submission([path.parent], read_table(table))
    assert attribute_figures(submission.rows, read_table(table), 20) == {}


def test_without_ratings_predictions_or_readers_there_are_none(study, tmp_path):
    predictions, table, *_ = study
    rows = read_table(table)
    assert attribute_figures(read_rows(predictions, ()), None, 10) == {}
    unrated = read_rows(write_csv(tmp_path / "q.csv", ["AnnotationID"], [["n1"]]), ())
    assert attribute_figures(unrated, rows, 10) == {}
    # A margin may be a word, and a texture anything, where nobody says that there are readers.
    rows = [[f"n{k}", k % 2, "smooth", "?"] for k in range(NODULES)]
    words = write_csv(tmp_path / "w.csv", ["AnnotationID", "label", "margin", "texture"], rows)
    assert attribute_figures(read_rows(predictions, ()), read_table(words), 10) == {}


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        ("p.csv", 3, "5.5", r"attribute_texture is '5\.5': .*p\.csv, line 3: give a number from 1 to 5"),
        ("t.csv", 4, "0", r"texture is '0': .*t\.csv, line 3: give a number from 1 to 5"),
        ("t.csv", 5, "x", r"texture_reader1 is 'x': .*t\.csv, line 3: "),
    ],
)
def test_numbers_off_the_scale(study, tmp_path, file, column, value, message):
    lines = (tmp_path / file).read_text().splitlines()
    cells = lines[2].split(",")
    cells[column] = value
    (tmp_path / file).write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")
    with pytest.raises(TableError, match=message):
        attribute_figures(read_rows(study[0], ()), read_table(study[1]), 10)
