import numpy as np
import pytest
from evaluation.samples import make_predictions
from scipy.stats import mannwhitneyu

from nodulemc.evaluation.challenge import challenge_figures
from nodulemc.evaluation.predictions import read_predictions

NAMES = ["Final Score", "AUC", "AUC 95% CI lower bound", "AUC 95% CI upper bound", "Sensitivity", "Specificity"]


def rank_auc(labels, probabilities):
    malignant, benign = probabilities[labels == 1], probabilities[labels == 0]
    return mannwhitneyu(malignant, benign).statistic / (len(malignant) * len(benign))


def resampled_interval(labels, probabilities):
    random = np.random.RandomState(42)
    areas = []
    for _ in range(1000):
        index = random.choice(len(labels), len(labels), replace=True)
        if 0 < labels[index].sum() < len(labels):
            areas.append(rank_auc(labels[index], probabilities[index]))
    return np.percentile(areas, [2.5, 97.5])


@pytest.mark.heavy
@pytest.mark.parametrize("nodules", [6, 250])
def test_figures_by_ranks(nodules):
    sample = make_predictions(nodules=nodules, patients=nodules, seed=4)
    figures = challenge_figures(sample.labels, sample.probabilities)
    assert list(figures) == NAMES
    area = rank_auc(sample.labels, sample.probabilities)
    low, high = resampled_interval(sample.labels, sample.probabilities)
    assert [figures[name] for name in NAMES[:4]] == pytest.approx([area, area, low, high], abs=1e-12)


def test_points_are_corners_of_the_curve():
    """At 5 % false positives the curve has no corner here, so the last one before it counts."""
    labels = np.array([0] * 10 + [1] * 10)
    probabilities = np.concatenate([np.arange(10) / 20, np.arange(10) / 20 + 0.275])
    figures = challenge_figures(labels, probabilities)
    # Malignant nodules above the highest benign one (0.45): from 0.475 on, 6 of 10.
    assert figures["Sensitivity"] == pytest.approx(0.6)
    # All malignant nodules are above 0.25, as are the benign ones from 0.3 on: 4 of 10.
    assert figures["Specificity"] == pytest.approx(0.6)


def test_recorded_figures_of_real_predictions(shared_data):
    sample = read_predictions([shared_data / "predictions/hiera_5fold_out_of_fold.csv"])
    figures = challenge_figures(sample.labels, sample.probabilities)
    recorded = [0.8909196643148142, 0.8909196643148142, 0.8781587048478464, 0.9032514634979498, 263 / 555, 3191 / 5608]
    assert list(figures.values()) == pytest.approx(recorded, abs=1e-9)
