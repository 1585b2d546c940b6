import numpy as np
import pytest
from evaluation.samples import make_predictions
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from nodulemc.evaluation.metrics import GRID, evaluate
from nodulemc.evaluation.predictions import read_predictions, read_table
from nodulemc.evaluation.submission import matched


def copied_rows(sample, resamples):
    """Bootstrap written out: the rows of drawn patients one after the other."""
    random = np.random.default_rng(99)
    members = [np.flatnonzero(sample.patients == p) for p in range(sample.patients.max() + 1)]
    for _ in range(resamples):
        index = np.concatenate([members[p] for p in random.integers(len(members), size=len(members))])
        yield sample.labels[index], sample.probabilities[index]


def best_sensitivity(labels, probabilities, specificity):
    false_rate, true_rate, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    return true_rate[false_rate <= 1 - specificity + 1e-9].max()


def best_specificity(labels, probabilities, sensitivity):
    false_rate, true_rate, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    return 1 - false_rate[true_rate >= sensitivity - 1e-9].min()


@pytest.fixture(scope="module")
def sample():
    return make_predictions(nodules=400, patients=120, seeds=2)


@pytest.fixture(scope="module")
def evaluation(sample):
    return evaluate(matched(sample, None), 1000)


@pytest.mark.heavy
def test_real_predictions_agree_with_scikit_learn(shared_data):
    table = read_table(shared_data / "luna25/luna25_public_training_development_data.csv")
    sample = read_predictions([shared_data / "predictions/hiera_5fold_out_of_fold.csv"], table)
    metrics = evaluate(matched(sample, table), 20).metrics
    labels, probabilities = sample.labels, sample.probabilities
    assert (metrics["nodules"], metrics["malignant"], metrics["patients"]) == (6163, 555, 2120)
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-9)
    assert metrics["average_precision"] == pytest.approx(average_precision_score(labels, probabilities), abs=1e-9)
    assert metrics["brier"] == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-9)
    for name in ("0.90", "0.95"):
        sensitivity = metrics["sensitivity_at_specificity"][name]["value"]
        specificity = metrics["specificity_at_sensitivity"][name]["value"]
        assert sensitivity == pytest.approx(best_sensitivity(labels, probabilities, float(name)), abs=1e-9)
        assert specificity == pytest.approx(best_specificity(labels, probabilities, float(name)), abs=1e-9)
    folds = np.array(sample.folds)
    for fold in "12345":
        here = folds == fold
        assert metrics["folds"][fold]["auc"] == pytest.approx(
            roc_auc_score(labels[here], probabilities[here]), abs=1e-9
        )
    women = np.array([cells["Gender"] == "Female" for cells in sample.columns])
    found = metrics["subgroups"]["sex"]["Female"]
    assert found["nodules"] == women.sum() == 2516
    assert found["auc"] == pytest.approx(roc_auc_score(labels[women], probabilities[women]), abs=1e-9)
    assert found["brier"] == pytest.approx(brier_score_loss(labels[women], probabilities[women]), abs=1e-9)


@pytest.mark.heavy
def test_intervals_are_those_of_copied_rows(sample, evaluation):
    """Other random numbers, so equal up to a few standard errors of a percentile."""
    rows = list(copied_rows(sample, 400))
    metrics = evaluation.metrics
    for found, statistic in (
        (metrics["auc_ci95"], roc_auc_score),
        (metrics["average_precision_ci95"], average_precision_score),
        (metrics["brier_ci95"], brier_score_loss),
        (metrics["sensitivity_at_specificity"]["0.90"]["ci95"], lambda y, p: best_sensitivity(y, p, 0.9)),
        (metrics["specificity_at_sensitivity"]["0.90"]["ci95"], lambda y, p: best_specificity(y, p, 0.9)),
    ):
        drawn = np.array([statistic(*row) for row in rows])
        assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.5 * drawn.std())


def test_nodules_of_one_patient_widen_the_interval():
    """Each patient's nodules ten times over: nothing is known that was not known before."""
    sample = make_predictions(nodules=80, patients=80, ties=False)
    many = sample.take(np.repeat(np.arange(80), 10))
    once, tenfold = (evaluate(matched(s, None), 600).metrics for s in (sample, many))
    assert tenfold["auc_ci95"] == pytest.approx(once["auc_ci95"], abs=1e-9)
    width = np.ptp(tenfold["auc_ci95"])
    # DeLong takes them for independent: narrower by about the root of ten.
    assert np.ptp(tenfold["auc_ci95_delong"]) == pytest.approx(width / np.sqrt(10), rel=0.2)


def test_every_value_lies_in_its_interval(evaluation):
    metrics = evaluation.metrics
    pairs = [(metrics[name], metrics[f"{name}_ci95"]) for name in ("auc", "average_precision", "brier")]
    pairs += [(f["value"], f["ci95"]) for f in metrics["sensitivity_at_specificity"].values()]
    pairs += [(f["value"], f["ci95"]) for f in metrics["specificity_at_sensitivity"].values()]
    assert all(low < value < high for value, (low, high) in pairs)


def test_seeds_and_groups(sample, evaluation):
    metrics = evaluation.metrics
    for name, values in sample.seeds.items():
        assert metrics["seeds"][name]["auc"] == pytest.approx(roc_auc_score(sample.labels, values), abs=1e-12)
    for criterion in ("age", "sex", "diameter_mm"):
        assert sum(group["nodules"] for group in metrics["subgroups"][criterion].values()) == 400
    assert sum(group["malignant"] for group in metrics["folds"].values()) == metrics["malignant"]
    assert list(metrics["folds"]) == ["1", "2", "3"]


def test_a_group_of_one_class_has_no_auc():
    sample = make_predictions(nodules=40, patients=20)
    sample = sample.take(np.arange(40))
    for cells, label in zip(sample.columns, sample.labels, strict=True):
        cells["Gender"] = "Male" if label else "Female"
    group = evaluate(matched(sample, None), 20).metrics["subgroups"]["sex"]["Male"]
    assert group["auc"] is None
    assert group["auc_ci95"] is None
    assert group["brier"] is not None


def test_bands_hold_the_curve(sample, evaluation):
    false_rate, true_rate, _ = roc_curve(sample.labels, sample.probabilities, drop_intermediate=False)
    curve = np.array([true_rate[false_rate <= x + 1e-9].max() for x in GRID])
    low, high = evaluation.roc_band
    assert ((low <= curve) & (curve <= high)).mean() > 0.98
    assert (low[-1], high[-1]) == (1, 1)


def test_the_same_input_gives_the_same_figures(sample):
    first, second = (evaluate(matched(sample, None), 30).metrics for _ in range(2))
    assert first == second
