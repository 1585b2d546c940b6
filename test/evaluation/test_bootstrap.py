import numpy as np
import pytest
from evaluation.samples import make_predictions

from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95


def test_whole_patients_are_drawn():
    sample = make_predictions()
    weights = np.concatenate(list(PatientBootstrap(sample.patients, 250).weights()))
    assert weights.shape == (250, len(sample))
    first_of_patient = np.unique(sample.patients, return_index=True)[1]
    assert (weights == weights[:, first_of_patient][:, sample.patients]).all()
    assert (weights[:, first_of_patient].sum(axis=1) == len(first_of_patient)).all()


def test_patients_are_drawn_with_replacement_and_alike():
    weights = np.concatenate(list(PatientBootstrap(np.arange(50), 4000).weights()))
    # The number of copies is binomial: 50 draws with probability 1/50.
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=5 * np.sqrt(0.98 / 4000))
    assert weights.var() == pytest.approx(0.98, abs=0.02)


def test_resamples_are_the_same_for_every_statistic():
    bootstrap = PatientBootstrap(np.array([0, 0, 1, 2, 2, 2]), 300)
    totals = bootstrap.apply(lambda weights: weights.sum(axis=1))
    last = bootstrap.apply(lambda weights: weights.sum(axis=1), np.array([3, 4, 5]))
    rest = bootstrap.apply(lambda weights: weights.sum(axis=1), np.array([0, 1, 2]))
    assert (last + rest == totals).all()


def test_interval_spans_the_middle_95_percent():
    assert interval95(np.arange(1001.0)) == pytest.approx([25, 975])


def test_resamples_without_the_statistic_are_left_out():
    values = np.arange(1001.0)
    assert interval95(np.append(values, [np.nan] * 500)) == pytest.approx([25, 975])
    assert interval95(np.append(values, [np.nan] * 1002)) is None
    assert interval95(np.full(10, np.nan)) is None


def test_standard_error_of_a_mean_over_patients():
    """A mean of m equal-sized patients has the standard deviation of the patients' means over the root of m."""
    random = np.random.default_rng(2)
    values = np.repeat(random.normal(size=100), 5)
    bootstrap = PatientBootstrap(np.repeat(np.arange(100), 5), 4000)
    means = bootstrap.apply(lambda weights: weights @ values / weights.sum(axis=1))
    assert means.std() == pytest.approx(values.std() / 10, rel=0.06)
