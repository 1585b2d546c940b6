"""ROC and precision-recall curves of many weighted samples at once, and the figures read from them.

All nodules are sorted by probability once. Each sample (a bootstrap resample) gives every nodule a whole weight.
"""

from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array

# A rate this close to an operating point reaches it. Rates are quotients of whole numbers, far coarser than this.
_ROUNDING = 1e-12


class Ranking:
    """The order of nodules by decreasing probability, with ties kept together.

    Args:
        labels: int (n,), 1 malignant, 0 benign.
        probabilities: float (n,).
    """

    def __init__(self, labels: Array, probabilities: Array) -> None:
        self._order = np.argsort(-probabilities, kind="stable")
        ranked = probabilities[self._order]
        self._last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        self._malignant = labels[self._order].astype(np.int64)

    def curves(self, weights: Array) -> "Curves":
        """Return the curves of each sample: ``weights`` int (B, n), in the order of ``labels``."""
        ranked = weights[:, self._order]
        positive = np.cumsum(ranked * self._malignant, axis=1)
        return Curves(
            true_positives=positive[:, self._last_of_tie],
            false_positives=(np.cumsum(ranked, axis=1) - positive)[:, self._last_of_tie],
        )


@dataclass(frozen=True)
class Curves:
    """Cumulative counts of B samples at T thresholds, from the highest threshold down.

    If a sample has only one class, figures that need the other are NaN.

    Attributes:
        true_positives: int64 (B, T), malignant nodules at or above the threshold.
        false_positives: int64 (B, T), benign nodules at or above the threshold.
    """

    true_positives: Array
    false_positives: Array

    @property
    def positives(self) -> Array:
        """The number of malignant nodules in each sample, float64 (B,), NaN for none."""
        return _nan_for_zero(self.true_positives[:, -1])

    @property
    def negatives(self) -> Array:
        """The number of benign nodules in each sample, float64 (B,), NaN for none."""
        return _nan_for_zero(self.false_positives[:, -1])

    def auc(self) -> Array:
        """Return the area under the ROC curve (B,). Ties count half."""
        steps = np.diff(self.false_positives, axis=1, prepend=0)
        twice_height = 2 * self.true_positives - np.diff(self.true_positives, axis=1, prepend=0)
        area: Array = (steps * twice_height).sum(axis=1) / (2 * self.positives * self.negatives)
        return area

    def average_precision(self) -> Array:
        """Return the mean precision over the malignant nodules (B,), as scikit-learn defines it."""
        called = np.maximum(self.true_positives + self.false_positives, 1)
        gained = np.diff(self.true_positives, axis=1, prepend=0)
        mean: Array = (gained * (self.true_positives / called)).sum(axis=1) / self.positives
        return mean

    def sensitivity_at(self, specificities: Array) -> Array:
        """Return the highest sensitivity with at least each specificity: (S,) to (B, S); 0 if there is none."""
        allowed = (1 - np.asarray(specificities) + _ROUNDING) * self.negatives[:, None]
        reached = _count_at_most(self.false_positives, allowed)
        found = np.take_along_axis(_from_zero(self.true_positives), reached, axis=1)
        return np.where(np.isnan(allowed), np.nan, found / self.positives[:, None])

    def specificity_at(self, sensitivities: Array) -> Array:
        """Return the highest specificity with at least each sensitivity: (S,) to (B, S)."""
        return 1 - self._at_sensitivity(self.false_positives, sensitivities) / self.negatives[:, None]

    def precision_at(self, sensitivities: Array) -> Array:
        """Return the precision at the highest threshold with at least each sensitivity: (S,) to (B, S)."""
        true = self._at_sensitivity(self.true_positives, sensitivities)
        false = self._at_sensitivity(self.false_positives, sensitivities)
        return true / _nan_for_zero(true + false)

    def _at_sensitivity(self, counts: Array, sensitivities: Array) -> Array:
        """Return ``counts`` at the highest threshold with at least each sensitivity."""
        needed = (np.asarray(sensitivities) - _ROUNDING) * self.positives[:, None]
        below = _count_at_most(self.true_positives, np.nan_to_num(needed))
        found = np.take_along_axis(counts, np.minimum(below, counts.shape[1] - 1), axis=1)
        return np.where(np.isnan(needed), np.nan, found)


def _count_at_most(rising: Array, limits: Array) -> Array:
    """Return how many of each row's values (B, T), which never fall, are at most its limits (B, S)."""
    return np.stack([np.searchsorted(row, ends, side="right") for row, ends in zip(rising, limits, strict=True)])


def _from_zero(counts: Array) -> Array:
    """Return the counts with those of a threshold above all probabilities in front: (B, T) to (B, T + 1)."""
    return np.pad(counts, ((0, 0), (1, 0)))


def _nan_for_zero(counts: Array) -> Array:
    return np.where(counts > 0, counts, np.nan)
