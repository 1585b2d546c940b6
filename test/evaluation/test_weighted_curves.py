import numpy as np
import pytest
from evaluation.samples import make_predictions
from sklearn.metrics import average_precision_score, roc_auc_score

from nodulemc.evaluation.weighted_curves import Ranking

TARGETS = np.array([0.5, 0.9, 0.95, 1.0])


@pytest.fixture(params=[True, False], ids=["ties", "no ties"])
def sample(request):
    return make_predictions(ties=request.param)


@pytest.fixture
def weights(sample):
    return np.random.default_rng(1).integers(0, 4, size=(20, len(sample)))


def copied(sample, weights):
    """Each sample written out: labels and probabilities with a row for every copy."""
    for row in weights:
        yield np.repeat(sample.labels, row), np.repeat(sample.probabilities, row)


def rates_at_every_threshold(labels, probabilities):
    """Sensitivity, specificity and precision of calling all nodules at or above each threshold, and of calling none."""
    for threshold in [*np.unique(probabilities), 2.0]:
        called = probabilities >= threshold
        precision = labels[called].mean() if called.any() else 1.0
        yield called[labels == 1].mean(), 1 - called[labels == 0].mean(), precision


def test_areas_are_scikit_learns(sample, weights):
    curves = Ranking(sample.labels, sample.probabilities).curves(weights)
    rows = list(copied(sample, weights))
    np.testing.assert_allclose(curves.auc(), [roc_auc_score(*row) for row in rows], atol=1e-12)
    np.testing.assert_allclose(curves.average_precision(), [average_precision_score(*row) for row in rows], atol=1e-12)


def test_operating_points_are_the_best_of_all_thresholds(sample, weights):
    curves = Ranking(sample.labels, sample.probabilities).curves(weights)
    found = curves.sensitivity_at(TARGETS), curves.specificity_at(TARGETS), curves.precision_at(TARGETS)
    for k, row in enumerate(copied(sample, weights)):
        points = list(rates_at_every_threshold(*row))
        for j, target in enumerate(TARGETS - 1e-9):
            assert found[0][k, j] == pytest.approx(max(sens for sens, spec, _ in points if spec >= target))
            assert found[1][k, j] == pytest.approx(max(spec for sens, spec, _ in points if sens >= target))
            # Of the thresholds that reach the target, the highest calls the fewest nodules.
            fewest = min((sens, -precision) for sens, _, precision in points if sens >= target)
            assert found[2][k, j] == pytest.approx(-fewest[1])


def test_an_operating_point_that_is_met_exactly_counts():
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.concatenate([np.linspace(0, 0.5, 20), np.linspace(0.48, 1, 20)])
    curves = Ranking(labels, probabilities).curves(np.ones((1, 40), int))
    # One of 20 benign nodules is above the lowest malignant one: specificity 0.95, sensitivity 1.
    assert curves.sensitivity_at(np.array([0.95]))[0, 0] == 1
    assert curves.specificity_at(np.array([0.95, 1.0]))[0].tolist() == [1, 0.95]


def test_a_sample_of_one_class_has_no_figures():
    labels, probabilities = np.array([0, 1, 1]), np.array([0.2, 0.4, 0.9])
    curves = Ranking(labels, probabilities).curves(np.array([[0, 1, 2], [3, 0, 0], [1, 1, 1]]))
    for values in (curves.auc(), curves.sensitivity_at(TARGETS)[:, 0], curves.specificity_at(TARGETS)[:, 0]):
        assert np.isnan(values).tolist() == [True, True, False]
