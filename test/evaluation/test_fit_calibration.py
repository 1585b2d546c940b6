from dataclasses import replace

import numpy as np
import pytest
from evaluation.samples import make_predictions
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import log_loss, roc_auc_score

from nodulemc.ensemble.calibration import METHODS, apply_calibration, check_calibration
from nodulemc.errors import ConfigError, TableError
from nodulemc.evaluation import fit_calibration as calibration
from nodulemc.evaluation.fit_calibration import calibration_figures, fit_calibration, held_out
from nodulemc.evaluation.predictions import read_predictions


def drawn(nodules, truth_of):
    """Labels drawn from a known function of the predicted probabilities."""
    random = np.random.default_rng(3)
    sample = make_predictions(nodules=nodules, patients=nodules, ties=False)
    probabilities = expit(random.normal(0, 1.5, nodules))
    labels = (random.uniform(size=nodules) < truth_of(probabilities)).astype(int)
    return replace(sample, labels=labels, probabilities=probabilities)


def test_temperature_is_found_again():
    sample = drawn(40_000, lambda p: expit(logit(p) / 2.5))
    share = sample.labels.mean()
    found = fit_calibration(sample, "temperature", training_prevalence=share)
    assert found["temperature"] == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("training_prevalence", [0.5, 0.2])
def test_temperature_has_the_least_log_loss(training_prevalence):
    sample = make_predictions()
    found = fit_calibration(sample, "temperature", training_prevalence=training_prevalence)
    losses = [
        log_loss(sample.labels, apply_calibration(sample.probabilities, found | {"temperature": t}))
        for t in found["temperature"] * np.array([0.99, 1, 1.01])
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_platt_is_the_maximum_likelihood_line():
    sample = make_predictions()
    score, signs = logit(np.clip(sample.probabilities, 1e-15, 1 - 1e-15)), 2 * sample.labels - 1
    best = minimize(lambda line: np.logaddexp(0, -signs * (line[0] * score + line[1])).sum(), [1, 0], tol=1e-10).x
    found = fit_calibration(sample, "platt", training_prevalence=0.5)
    assert [found["slope"], found["intercept"]] == pytest.approx(best, abs=1e-3)


def test_isotonic_is_the_rising_fit():
    sample = make_predictions(ties=False)
    found = fit_calibration(sample, "isotonic", training_prevalence=0.5)
    order = np.argsort(sample.probabilities)
    expected = isotonic_regression(sample.labels[order].astype(float))
    np.testing.assert_allclose(apply_calibration(sample.probabilities[order], found), expected, atol=2e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("method", METHODS)
def test_real_predictions_get_better_and_keep_their_order(shared_data, method):
    sample = read_predictions([shared_data / "predictions/hiera_5fold_out_of_fold.csv"])
    found = fit_calibration(sample, method, training_prevalence=0.5, prevalence=0.2)
    check_calibration(found, "fit")
    calibrated = apply_calibration(sample.probabilities, found)
    order = np.argsort(sample.probabilities, kind="stable")
    assert (np.diff(sample.probabilities[order]) > 0).tolist() == (np.diff(calibrated[order]) > 0).tolist()
    assert roc_auc_score(sample.labels, calibrated) == roc_auc_score(sample.labels, sample.probabilities)
    before = calibration_figures(sample.labels, sample.probabilities)
    after = calibration_figures(sample.labels, held_out(sample, method, training_prevalence=0.5))
    assert all(after[name] < before[name] for name in before)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_mean_probability_is_the_share_of_malignant_nodules(method):
    """A property of both fits: the calibrated probabilities add up to the number of malignant nodules."""
    sample = make_predictions()
    found = fit_calibration(sample, method, training_prevalence=0.5)
    assert apply_calibration(sample.probabilities, found).mean() == pytest.approx(sample.labels.mean(), abs=1e-5)


def test_held_out_probabilities_come_from_other_patients(monkeypatch):
    """Each fold's map is marked by its own intercept; no nodule may be mapped by one fitted on its patient."""
    sample = replace(make_predictions(), probabilities=np.full(300, 0.5))
    fits = []

    def record(fitting, method, *, training_prevalence):
        fits.append(set(fitting.patients.tolist()))
        half = {"training_prevalence": 0.5, "fitted_prevalence": 0.5, "prevalence": 0.5}
        return half | {"method": "platt", "slope": 1, "intercept": float(len(fits))}

    monkeypatch.setattr(calibration, "fit_calibration", record)
    used = logit(held_out(sample, "platt", training_prevalence=0.5)).round().astype(int)
    assert len(fits) == 5
    assert all(patient not in fits[map_ - 1] for patient, map_ in zip(sample.patients.tolist(), used, strict=True))
    assert set(used.tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("method", METHODS)
def test_predictions_the_wrong_way_round_are_refused(method):
    sample = make_predictions()
    wrong = replace(sample, probabilities=1 - sample.probabilities)
    with pytest.raises(TableError, match="do not get higher probabilities"):
        fit_calibration(wrong, method, training_prevalence=0.5)


@pytest.mark.parametrize("value", [0, 1, -0.1, 9, float("nan")])
def test_impossible_prevalence(value):
    with pytest.raises(ConfigError, match="prevalence"):
        fit_calibration(make_predictions(), "platt", training_prevalence=0.5, prevalence=value)
    with pytest.raises(ConfigError, match="training prevalence"):
        fit_calibration(make_predictions(), "platt", training_prevalence=value)


def test_too_few_patients_to_leave_some_out():
    sample = make_predictions(nodules=12, patients=4)
    with pytest.raises(TableError, match="less than 5 patients"):
        held_out(sample, "platt", training_prevalence=0.5)
