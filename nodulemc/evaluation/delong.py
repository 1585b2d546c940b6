"""DeLong's variance of the area under the ROC curve, and of differences between correlated areas.

Sources: DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837; computed from midranks as in Sun & Xu, IEEE Signal
Processing Letters 21 (2014) 1389. The method assumes independent nodules, but nodules of one patient are not
independent. The patient-level bootstrap does not assume it.
"""

import numpy as np
from scipy.stats import norm, rankdata

from nodulemc.arrays import Array

_Z95 = float(norm.ppf(0.975))


def auc_covariance(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Return the areas and their covariance.

    Args:
        labels: int (n,), 1 malignant, 0 benign.
        scores: float (k, n), k sets of scores for the same nodules.

    Returns:
        The areas (k,) and their covariance (k, k), which is NaN if a class has a single nodule.
    """
    malignant, benign = scores[:, labels == 1], scores[:, labels == 0]
    m, n = malignant.shape[1], benign.shape[1]
    together = rankdata(np.hstack([malignant, benign]), axis=1)
    # For a malignant nodule, the share of benign ones below it. For a benign one, the share of malignant ones above it.
    below = (together[:, :m] - rankdata(malignant, axis=1)) / n
    above = 1 - (together[:, m:] - rankdata(benign, axis=1)) / m
    return below.mean(axis=1), _covariance(below) / m + _covariance(above) / n


def auc_interval95(labels: Array, scores: Array) -> list[float] | None:
    """Return the 95 % interval of one area (scores (n,)), cut to 0…1. None if a class has a single nodule."""
    areas, covariance = auc_covariance(labels, scores[None])
    reach = _Z95 * np.sqrt(covariance[0, 0])
    return None if np.isnan(reach) else [max(0.0, float(areas[0] - reach)), min(1.0, float(areas[0] + reach))]


def difference(labels: Array, first: Array, second: Array) -> tuple[float, list[float] | None, float | None]:
    """Return the area of ``first`` minus that of ``second``: its value, 95 % interval and two-sided p-value.

    If the two rank alike, there is no variance, and the p-value is 1. If a class has a single nodule, there is neither
    interval nor p-value.
    """
    areas, covariance = auc_covariance(labels, np.stack([first, second]))
    value = float(areas[0] - areas[1])
    if np.isnan(covariance).any():
        return value, None, None
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    p = 1.0 if value == 0 else float(2 * norm.sf(abs(value) / error)) if error > 0 else 0.0
    return value, [value - _Z95 * error, value + _Z95 * error], p


def _covariance(components: Array) -> Array:
    """Return the covariance of the rows (k, m), NaN for m = 1."""
    if components.shape[1] < 2:
        return np.full((len(components),) * 2, np.nan)
    return np.atleast_2d(np.cov(components))
