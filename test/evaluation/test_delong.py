import numpy as np
import pytest
from evaluation.samples import make_predictions
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from nodulemc.evaluation.delong import auc_covariance, auc_interval95, difference
from nodulemc.evaluation.predictions import read_predictions


def structural_components(labels, scores):
    """DeLong's V10 and V01 by comparing every malignant with every benign nodule."""
    malignant, benign = scores[labels == 1][:, None], scores[labels == 0][None]
    wins = (malignant > benign) + 0.5 * (malignant == benign)
    return wins.mean(axis=1), wins.mean(axis=0)


def direct_covariance(labels, score_sets):
    """The areas' covariance from the definition: sums of products of deviations, one pair of sets at a time."""
    components = [structural_components(labels, scores) for scores in score_sets]
    covariance = np.zeros((len(score_sets),) * 2)
    for r, first in enumerate(components):
        for s, second in enumerate(components):
            for a, b in zip(first, second, strict=True):
                covariance[r, s] += np.sum((a - a.mean()) * (b - b.mean())) / (len(a) - 1) / len(a)
    return covariance


@pytest.mark.parametrize("ties", [True, False])
def test_covariance_is_that_of_the_definition(ties):
    sample = make_predictions(ties=ties, seeds=2)
    scores = np.stack([sample.probabilities, *sample.seeds.values()])
    areas, covariance = auc_covariance(sample.labels, scores)
    np.testing.assert_allclose(areas, [roc_auc_score(sample.labels, s) for s in scores], atol=1e-12)
    np.testing.assert_allclose(covariance, direct_covariance(sample.labels, scores), atol=1e-15)


def test_interval_on_real_predictions(shared_data):
    sample = read_predictions([shared_data / "predictions/hiera_5fold_out_of_fold.csv"])
    error = np.sqrt(direct_covariance(sample.labels, [sample.probabilities])[0, 0])
    area = roc_auc_score(sample.labels, sample.probabilities)
    expected = norm.interval(0.95, loc=area, scale=error)
    assert auc_interval95(sample.labels, sample.probabilities) == pytest.approx(expected, abs=1e-9)


def test_interval_is_cut_to_possible_areas_and_needs_two_of_each_class():
    assert auc_interval95(np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.15, 0.9, 0.8]))[1] == 1
    assert auc_interval95(np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])) is None


def test_difference():
    sample = make_predictions(seeds=1)
    other = sample.seeds["seed_0"]
    value, interval, p = difference(sample.labels, sample.probabilities, other)
    c = direct_covariance(sample.labels, [sample.probabilities, other])
    error = np.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1])
    expected = roc_auc_score(sample.labels, sample.probabilities) - roc_auc_score(sample.labels, other)
    assert value == pytest.approx(expected, abs=1e-12)
    assert interval == pytest.approx(norm.interval(0.95, loc=expected, scale=error), abs=1e-9)
    assert p == pytest.approx(2 * (1 - norm.cdf(abs(expected) / error)), abs=1e-9)


def test_no_difference_between_equal_rankings():
    sample = make_predictions()
    assert difference(sample.labels, sample.probabilities, sample.probabilities**3) == (0, [0, 0], 1)
