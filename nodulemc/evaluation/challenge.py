"""The six figures of the LUNA25 challenge, as its public evaluation computes them.

Source: the challenge's public evaluation code (LUNA25, https://luna25.grand-challenge.org). It resamples nodules, not
patients, gives no intervals for sensitivity and specificity, and reads these two from the corners of the ROC curve.
"""

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from nodulemc.arrays import Array
from nodulemc.evaluation.weighted_curves import Ranking

_RESAMPLES = 1000
_SEED = 42
_TARGET = 0.95


def challenge_figures(labels: Array, probabilities: Array) -> dict[str, float]:
    """Return the challenge's figures, by the challenge's names.

    The interval's random resamples depend on the order of the nodules.

    Args:
        labels: int (n,), 1 malignant, 0 benign. Both must occur.
        probabilities: float (n,).
    """
    auc = float(roc_auc_score(labels, probabilities))
    # The legacy generator is part of the definition.
    random = np.random.RandomState(seed=_SEED)
    ranking = Ranking(labels, probabilities)
    resampled = []
    for _ in range(_RESAMPLES):
        index = random.choice(len(labels), len(labels), replace=True)
        copies = np.bincount(index, minlength=len(labels))
        resampled.append(ranking.curves(copies[None]).auc()[0])
    # A resample of one class has no AUC. The challenge skips it.
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    false_rate, true_rate, _ = roc_curve(labels, probabilities)
    return {
        "Final Score": auc,
        "AUC": auc,
        "AUC 95% CI lower bound": float(low),
        "AUC 95% CI upper bound": float(high),
        "Sensitivity": float(true_rate[np.flatnonzero(false_rate <= 1 - _TARGET)[-1]]),
        "Specificity": float(1 - false_rate[np.flatnonzero(true_rate >= _TARGET)[0]]),
    }
