import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nodulemc.phantom import malignancy
from nodulemc.phantom.malignancy import Traits
from nodulemc.phantom.patient import Patient

PLAIN = Traits("smooth", "solid", "none", "none")


@pytest.fixture(scope="module")
def cohort():
    """Diameter, label, known probability and years since first sight of every row of 1,500 patients."""
    rows = []
    for patient in (Patient(11, index) for index in range(1500)):
        for scan in patient.scans:
            for lesion in patient.shown(scan):
                diameter = lesion.diameter(scan)
                probability = malignancy.probability(diameter, lesion.traits)
                rows.append((diameter, lesion.label, probability, scan - lesion.first_scan))
    return np.array(rows).T


def odds(probability):
    return probability / (1 - probability)


@pytest.mark.parametrize(
    ("traits", "ratio"),
    [
        (Traits("spiculated", "solid", "none", "none"), 5.54 / 0.30),
        (Traits("lobulated", "solid", "none", "none"), 0.74 / 0.30),
        (Traits("smooth", "part-solid", "none", "none"), (10 / 16 / (6 / 16)) / (0.07 / 0.93)),
        (Traits("smooth", "ground-glass", "none", "none"), (5 / 28 / (23 / 28)) / (0.07 / 0.93)),
        (Traits("smooth", "solid", "central", "none"), 0.01),
    ],
)
def test_odds_ratios_are_the_published_ones(traits, ratio):
    p, plain = (malignancy.first_sight_probability(9.0, t) for t in (traits, PLAIN))
    assert odds(p) / odds(plain) == pytest.approx(ratio, rel=0.03)


def test_size_term_is_the_brock_models():
    # From 10 mm to 20 mm: -5.3854 ((2)^-0.5 - (1)^-0.5).
    larger, smaller = (malignancy.first_sight_probability(d, PLAIN) for d in (20.0, 10.0))
    assert np.log(odds(larger) / odds(smaller)) == pytest.approx(-5.3854 * (2**-0.5 - 1), rel=1e-6)


@pytest.mark.heavy
def test_nine_percent_are_malignant(cohort):
    _, labels, probabilities, _ = cohort
    assert probabilities.mean() == pytest.approx(0.09, abs=0.006)
    # Rows of one lesion share a label, so the share varies more than a binomial's.
    assert labels.mean() == pytest.approx(0.09, abs=0.02)


def test_labels_follow_the_known_probability(cohort):
    _, labels, probabilities, _ = cohort
    for low, high in ((0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1)):
        inside = (probabilities >= low) & (probabilities < high)
        expected = probabilities[inside].mean()
        spread = np.sqrt(expected * (1 - expected) / inside.sum())
        assert labels[inside].mean() == pytest.approx(expected, abs=5 * spread)


def test_years_since_first_sight_have_the_share_the_posterior_assumes(cohort):
    years = cohort[3]
    shares = [np.mean(years == k) for k in range(3)]
    assert shares == pytest.approx(malignancy.years_since_first_sight(), abs=0.02)


def test_best_auc_lies_well_above_that_of_diameter(cohort):
    diameters, labels, probabilities, _ = cohort
    best = malignancy.best_auc(probabilities)
    assert 0.90 < best < 0.94
    assert roc_auc_score(labels, probabilities) == pytest.approx(best, abs=0.025)
    assert 0.70 < roc_auc_score(labels, diameters) < 0.80


@pytest.mark.heavy
def test_best_auc_is_the_mean_over_drawn_labels():
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.beta(0.4, 2, 400), 2)  # rounded, so that ties occur
    drawn = [roc_auc_score(rng.random(400) < probabilities, probabilities) for _ in range(300)]
    assert malignancy.best_auc(probabilities) == pytest.approx(np.mean(drawn), abs=0.004)


@pytest.mark.heavy
def test_a_readers_expected_auc_is_its_mean_over_drawn_labels():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.4, 2, 400)
    scores = np.round(probabilities + rng.normal(0, 0.2, 400), 1)  # ties between nodules of other probabilities
    drawn = [roc_auc_score(rng.random(400) < probabilities, scores) for _ in range(300)]
    assert malignancy.expected_auc(scores, probabilities) == pytest.approx(np.mean(drawn), abs=0.004)
    assert malignancy.expected_auc(scores, probabilities) < malignancy.best_auc(probabilities) - 0.05


def test_growth_is_a_doubling_of_volume():
    assert malignancy.growth(400 / 365.25, 400.0) ** 3 == pytest.approx(2)
