"""Further scores beside the network's: scikit-learn's AUC, `compare`'s difference, and what is refused."""

import json

import numpy as np
import pytest
from evaluation.samples import make_predictions, write_csv
from sklearn.metrics import roc_auc_score

from nodulemc import cli
from nodulemc.errors import TableError
from nodulemc.evaluation.compare import compare
from nodulemc.evaluation.predictions import read_predictions, read_table
from nodulemc.evaluation.scores import score_figures

RESAMPLES = 60


@pytest.fixture
def made(tmp_path):
    """Predictions with a Brock probability for all but every fifth nodule, and a table with diameters."""
    sample = make_predictions()
    rng = np.random.default_rng(3)
    brock = 1 / (1 + np.exp(3 - sample.labels - rng.normal(size=len(sample))))
    cells = ["" if k % 5 == 0 else repr(float(p)) for k, p in enumerate(brock)]
    header = ("AnnotationID", "label", "probability", "brock_full", "lung_rads_size")
    rows = zip(sample.ids, sample.labels, sample.probabilities, cells, ["4X"] * len(sample), strict=True)
    diameters = zip(sample.ids, sample.labels, [c["diameter_mm"] for c in sample.columns], strict=True)
    return (
        write_csv(tmp_path / "p.csv", header, [*rows]),
        write_csv(tmp_path / "t.csv", ("AnnotationID", "label", "Diameter_mm"), [*diameters]),
        sample,
        brock,
    )


def test_each_score_is_judged_on_the_nodules_that_have_it(made):
    path, _, sample, brock = made
    found = score_figures(read_predictions([path]), ["brock_full"], RESAMPLES)["brock_full"]
    there = np.arange(len(sample)) % 5 != 0
    labels = sample.labels[there]
    assert (found["nodules"], found["malignant"]) == (there.sum(), labels.sum())
    assert found["auc"] == pytest.approx(roc_auc_score(labels, brock[there]))
    assert found["network_auc"] == pytest.approx(roc_auc_score(labels, sample.probabilities[there]))
    assert found["difference"] == pytest.approx(found["network_auc"] - found["auc"])
    assert found["auc_ci95"][0] < found["auc"] < found["auc_ci95"][1]
    assert found["difference_ci95"][0] < found["difference"] < found["difference_ci95"][1]


def test_the_difference_is_that_of_compare(made, tmp_path):
    path, table, sample, _ = made
    predictions = read_predictions([path])
    sizes = [float(cells["diameter_mm"]) / 100 for cells in sample.columns]
    rows = [*zip(sample.ids, sample.labels, sizes, strict=True)]
    alone = write_csv(tmp_path / "d.csv", ("AnnotationID", "label", "probability"), rows)
    expected = compare(predictions, read_predictions([alone]), RESAMPLES)
    found = score_figures(read_predictions([path], read_table(table)), ["diameter_mm"], RESAMPLES)["diameter_mm"]
    assert (found["difference"], found["p"]) == (pytest.approx(expected.difference), expected.bootstrap_p)
    assert found["difference_ci95"] == pytest.approx(expected.bootstrap_ci95)
    assert found["difference_ci95_delong"] == pytest.approx(expected.delong_ci95)


def test_network_brock_and_size_in_one_table(made, tmp_path, capsys):
    path, table, sample, _ = made
    output = tmp_path / "out"
    words = ["evaluate", path, "--table", table, "--scores", "brock_full", "diameter_mm", "--bootstrap", RESAMPLES]
    assert cli.main([*map(str, words), "--output", str(output)]) == 0
    scores = json.loads((output / "metrics.json").read_text())["scores"]
    assert [*scores] == ["brock_full", "diameter_mm"]
    assert scores["diameter_mm"]["nodules"] == len(sample)
    lines = capsys.readouterr().out.splitlines()
    for name in scores:
        (line,) = [line for line in lines if line.startswith(f"auc of {name}")]
        assert f"{scores[name]['auc']:.4f}" in line
        assert f"{scores[name]['network_auc']:.4f}" in line
    page = (output / "report.html").read_text()
    assert "Other scores" in page
    assert f"<td>{scores['brock_full']['auc']:.3f}</td>" in page


def test_one_class_has_no_figures(tmp_path):
    rows = [("a", 0, 0.1, 3), ("b", 0, 0.2, 4), ("c", 1, 0.3, "")]
    path = write_csv(tmp_path / "p.csv", ("AnnotationID", "label", "probability", "mayo"), rows)
    found = score_figures(read_predictions([path]), ["mayo"], RESAMPLES)["mayo"]
    assert (found["nodules"], found["malignant"], found["auc"], found["difference"]) == (2, 0, None, None)


def test_lung_rads_categories_rank(tmp_path):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 60)
    ranks = np.clip(rng.integers(0, 4, 60) + labels, 0, 3)
    rows = [(k, labels[k], rng.uniform(), ("2", "3", "4A", "4B")[ranks[k]]) for k in range(60)]
    path = write_csv(tmp_path / "p.csv", ("AnnotationID", "label", "probability", "lung_rads_size"), rows)
    found = score_figures(read_predictions([path]), ["lung_rads_size"], RESAMPLES)["lung_rads_size"]
    assert found["auc"] == pytest.approx(roc_auc_score(labels, ranks))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("brok_full", "no nodule has a brok_full"),
        ("lung_rads_size", "lung_rads_size is '4X': nodule .*: give a number"),
    ],
)
def test_what_is_refused(made, column, message):
    with pytest.raises(TableError, match=message):
        score_figures(read_predictions([made[0]]), [column], RESAMPLES)
