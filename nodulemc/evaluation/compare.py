"""Comparing two sets of predictions for the same nodules: is one AUC higher?"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from nodulemc.arrays import Array
from nodulemc.errors import TableError
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.delong import difference
from nodulemc.evaluation.predictions import Predictions
from nodulemc.evaluation.small_samples import caution
from nodulemc.evaluation.weighted_curves import Ranking
from nodulemc.util.text import counted


@dataclass(frozen=True)
class Comparison:
    """The AUC of the first predictions minus that of the second.

    Attributes:
        nodules: The number of nodules in both sets.
        malignant: The number of malignant ones among them.
        caution: The caution for the intervals. None if there is none.
        patients: The number of patients that were resampled. None if each nodule was resampled by itself.
        auc: The AUC of the first and of the second predictions.
        difference: The first AUC minus the second.
        delong_ci95, delong_p: The results of the paired DeLong test. None if a class has a single nodule.
        bootstrap_ci95, bootstrap_p: The results of the patient-level bootstrap, on the same resamples for both. None if
            most resamples have a single class.
    """

    nodules: int
    malignant: int
    caution: str | None
    patients: int | None
    auc: tuple[float, float]
    difference: float
    delong_ci95: list[float] | None
    delong_p: float | None
    bootstrap_ci95: list[float] | None
    bootstrap_p: float | None


def compare(first: Predictions, second: Predictions, resamples: int) -> Comparison:
    """Compare two sets of predictions of the same nodules, in any order.

    Raises:
        TableError: some nodules are in only one set, or have different labels.
    """
    second = _in_order_of(first, second)
    labels = first.labels
    value, interval, p = difference(labels, first.probabilities, second.probabilities)
    rankings = [Ranking(labels, predictions.probabilities) for predictions in (first, second)]
    bootstrap = PatientBootstrap(first.patients, resamples)
    aucs = bootstrap.apply(lambda weights: np.stack([r.curves(weights).auc() for r in rankings], axis=1))
    differences = aucs[:, 0] - aucs[:, 1]
    bootstrap_interval = interval95(differences)
    return Comparison(
        nodules=len(first),
        malignant=int(labels.sum()),
        caution=caution(first),
        patients=bootstrap.patients if first.patients_known else None,
        auc=(
            float(roc_auc_score(labels, first.probabilities)),
            float(roc_auc_score(labels, second.probabilities)),
        ),
        difference=value,
        delong_ci95=interval,
        delong_p=p,
        bootstrap_ci95=bootstrap_interval,
        bootstrap_p=None if bootstrap_interval is None else _two_sided_p(differences),
    )


def _two_sided_p(differences: Array) -> float:
    """Return twice the smaller share of resampled differences on either side of 0, with one added to each side's count.

    Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), section 4.2: a p-value is never 0.
    """
    existing = differences[~np.isnan(differences)]
    smaller = min(np.count_nonzero(existing <= 0), np.count_nonzero(existing >= 0))
    return float(min(1, 2 * (smaller + 1) / (len(existing) + 1)))


def _in_order_of(first: Predictions, second: Predictions) -> Predictions:
    place = {name: k for k, name in enumerate(second.ids)}
    for one, other in ((first, second), (second, first)):
        alone = sorted(set(one.ids) - set(other.ids))
        if alone:
            raise TableError(
                f"{counted(len(alone), 'nodule')} of {one.source} not there: {', '.join(alone[:5])}",
                other.source,
                "compare predictions of the same nodules",
            )
    second = second.take(np.array([place[name] for name in first.ids]))
    differing = [first.ids[k] for k in np.flatnonzero(first.labels != second.labels)]
    if differing:
        raise TableError(
            f"the labels of {counted(len(differing), 'nodule')} are not those of {first.source}: "
            + ", ".join(differing[:5]),
            second.source,
            "compare predictions of one study",
        )
    return second
