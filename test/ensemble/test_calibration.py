import json

import numpy as np
import pytest
from scipy.special import expit, logit

from nodulemc.ensemble.calibration import apply_calibration, check_calibration
from nodulemc.errors import EnsembleError

BALANCED = {"training_prevalence": 0.5, "fitted_prevalence": 0.5, "prevalence": 0.5}
MAPS = {
    "temperature": {"method": "temperature", **BALANCED, "temperature": 1.7},
    "platt": {"method": "platt", **BALANCED, "slope": 0.8, "intercept": -1.1},
    "isotonic": {"method": "isotonic", **BALANCED, "knots": [0.1, 0.4, 0.6, 0.9], "values": [0, 0.3, 0.3, 1]},
}
PROBABILITIES = np.array([1e-6, 0.02, 0.3, 0.45, 0.5, 0.55, 0.8, 0.97, 1 - 1e-6])


def test_no_map_changes_nothing():
    assert (apply_calibration(PROBABILITIES, None) == PROBABILITIES).all()


def test_temperature_divides_the_logit():
    expected = expit(logit(PROBABILITIES) / 1.7)
    np.testing.assert_allclose(apply_calibration(PROBABILITIES, MAPS["temperature"]), expected, rtol=1e-9)


def test_platt_is_a_line_in_the_logit():
    expected = expit(0.8 * logit(PROBABILITIES) - 1.1)
    np.testing.assert_allclose(apply_calibration(PROBABILITIES, MAPS["platt"]), expected, rtol=1e-9)


def test_isotonic_interpolates():
    found = apply_calibration(np.array([0.05, 0.25, 0.5, 0.75, 0.95]), MAPS["isotonic"])
    np.testing.assert_allclose(found, [0, 0.15, 0.3, 0.65, 1], atol=2e-6)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("prevalence", [0.02, 0.5, 0.9])
def test_order_stays(name, prevalence):
    rising = np.sort(np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, 20_000))
    rising = np.unique(rising.round(9))
    found = apply_calibration(rising, MAPS[name] | {"prevalence": prevalence})
    assert (np.diff(found) > 0).all()
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("name", MAPS)
def test_certain_probabilities_stay_probabilities(name):
    found = apply_calibration(np.array([0.0, 1.0]), MAPS[name] | {"prevalence": 0.09})
    assert np.isfinite(found).all()
    assert 0 <= found[0] < 1e-5
    assert 1 - 1e-4 < found[1] <= 1


def test_prior_correction_is_bayes_rule():
    """Two measurements with known likelihoods: the posterior at one prevalence from that at another."""
    likelihoods = np.array([[0.7, 0.3], [0.2, 0.8]])  # rows benign, malignant

    def posterior(prevalence):
        joint = likelihoods * np.array([[1 - prevalence], [prevalence]])
        return joint[1] / joint.sum(axis=0)

    neutral = {"method": "platt", "training_prevalence": 0.5, "fitted_prevalence": 0.5, "slope": 1, "intercept": 0}
    np.testing.assert_allclose(apply_calibration(posterior(0.5), neutral | {"prevalence": 0.09}), posterior(0.09))
    # A temperature of 1 corrects from training's share to that of the fit, and from there to that of use.
    scaled = {"method": "temperature", "temperature": 1, "training_prevalence": 0.5, "fitted_prevalence": 0.2}
    np.testing.assert_allclose(apply_calibration(posterior(0.5), scaled | {"prevalence": 0.09}), posterior(0.09))


@pytest.mark.parametrize("name", MAPS)
def test_maps_survive_json(name):
    stored = json.loads(json.dumps(MAPS[name]))
    check_calibration(stored, "ensemble.json")
    assert (apply_calibration(PROBABILITIES, stored) == apply_calibration(PROBABILITIES, MAPS[name])).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("temperature", {"temperature": 0}),
        ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": "1"}),
        ("temperature", {"temperature": True}),
        ("temperature", {"temperature": 10**400}),
        ("temperature", {"prevalence": 0}),
        ("temperature", {"training_prevalence": 1}),
        ("temperature", {"method": "magic"}),
        ("platt", {"slope": -0.5}),
        ("platt", {"slope": 10**400}),
        ("platt", {"intercept": None}),
        ("platt", {"intercept": -(10**400)}),
        ("isotonic", {"values": [0, 0.3, 0.2, 1]}),
        ("isotonic", {"values": [0, 0.3, 0.3, 1.1]}),
        ("isotonic", {"values": [0, 1]}),
        ("isotonic", {"knots": [0.1, 0.1, 0.6, 0.9]}),
        ("isotonic", {"knots": [], "values": []}),
        ("isotonic", {"knots": "many"}),
        ("isotonic", {"knots": [0.1, 0.4, 0.6, 10**400]}),
        ("isotonic", {"knots": ["0.1", "0.4", "0.6", "0.9"]}),
        ("isotonic", {"knots": [[0.1, 0.4], [0.6, 0.9]], "values": [[0, 0.3], [0.3, 1]]}),
    ],
)
def test_bad_maps_are_refused(name, change):
    with pytest.raises(EnsembleError, match=r"calibration.*ensemble\.json"):
        check_calibration(MAPS[name] | change, "ensemble.json")


def test_no_map_is_fine_and_others_are_not():
    check_calibration(None, "ensemble.json")
    for value in ([], "platt", 3, {}):
        with pytest.raises(EnsembleError):
            check_calibration(value, "ensemble.json")
