import numpy as np
import pytest

from nodulemc.evaluation.reliability import reliability


def test_bins_by_hand():
    probabilities = np.array([0.0, 0.05, 0.1, 0.15, 0.95, 1.0])
    labels = np.array([0, 1, 0, 0, 1, 1])
    found = reliability(labels, probabilities, np.ones((1, 6), int))
    assert found.count[0].tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.predicted[0, [0, 1, 9]] == pytest.approx([0.025, 0.125, 0.975])
    assert found.observed[0, [0, 1, 9]] == pytest.approx([0.5, 0, 1])
    assert np.isnan(found.observed[0, 2:9]).all()
    expected = (2 * 0.475 + 2 * 0.125 + 2 * 0.025) / 6
    assert found.expected_calibration_error()[0] == pytest.approx(expected)


def test_weights_are_copies():
    random = np.random.default_rng(0)
    probabilities, labels = random.uniform(size=50), random.integers(2, size=50)
    weights = random.integers(0, 3, size=(1, 50))
    copied = np.repeat(np.arange(50), weights[0])
    found = reliability(labels, probabilities, weights).expected_calibration_error()
    expected = reliability(
        labels[copied], probabilities[copied], np.ones((1, len(copied)))
    ).expected_calibration_error()
    assert found == pytest.approx(expected)


def test_frequencies_equal_to_probabilities_have_no_error():
    probabilities = np.repeat([0.25, 0.75], 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    assert reliability(labels, probabilities, np.ones((1, 8))).expected_calibration_error()[0] == 0
