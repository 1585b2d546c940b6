"""All figures of an evaluation: the content of ``metrics.json``, and the curves in the report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from nodulemc.arrays import Array
from nodulemc.ensemble.trained_cases import SEEN, TrainedCases
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.challenge import challenge_figures
from nodulemc.evaluation.delong import auc_interval95
from nodulemc.evaluation.origin import ensembles
from nodulemc.evaluation.predictions import Predictions
from nodulemc.evaluation.reliability import Reliability, reliability
from nodulemc.evaluation.scores import score_figures
from nodulemc.evaluation.small_samples import caution
from nodulemc.evaluation.subgroups import subgroups
from nodulemc.evaluation.submission import Submission
from nodulemc.evaluation.training_cases import is_seen, seen_in_training
from nodulemc.evaluation.weighted_curves import Ranking

OPERATING_POINTS = ("0.90", "0.95")
# The positions of the curves' bands: false positive rates for the ROC curve, sensitivities for the other curve.
GRID = np.linspace(0, 1, 201)
_TARGETS = np.array([float(name) for name in OPERATING_POINTS])


@dataclass(frozen=True)
class Evaluation:
    """The figures and the data of the charts.

    Attributes:
        metrics: The content of ``metrics.json``.
        submission: The evaluated submission.
        roc_band: The 95 % band of the sensitivity at the false positive rates of ``GRID``, (2, G).
        precision_band: The 95 % band of the precision at the sensitivities of ``GRID``, (2, G).
        reliability: The reliability of the predictions, as one sample.
        observed_band: The 95 % band of the observed share in each bin, (2, BINS), NaN if it does not exist.
    """

    metrics: dict[str, Any]
    submission: Submission
    roc_band: Array
    precision_band: Array
    reliability: Reliability
    observed_band: Array


def evaluate(
    submission: Submission,
    resamples: int,
    cases: TrainedCases | None = None,
    *,
    attributes: dict[str, Any] | None = None,
    scores: Sequence[str] = (),
) -> Evaluation:
    """Compute everything.

    Args:
        submission: The predictions.
        resamples: The number of patient-level bootstrap resamples.
        cases: The training cases of the ensemble. None if they are known only from the predictions, or not at all.
        attributes: The figures of ``nodulemc.evaluation.attributes``, if there are any.
        scores: The columns to compare with the network's probability, see ``nodulemc.evaluation.scores``.

    Raises:
        TableError: an age or diameter in the table, or a score, is not a number, or no nodule has a score.
    """
    predictions = submission.predictions
    labels, probabilities = predictions.labels, predictions.probabilities
    bootstrap = PatientBootstrap(predictions.patients, resamples)
    drawn = _resampled(predictions, bootstrap)
    once = np.ones((1, len(predictions)), np.int64)
    ranking = Ranking(labels, probabilities).curves(once)
    bins = reliability(labels, probabilities, once)
    metrics = {
        "nodules": len(predictions),
        "malignant": int(labels.sum()),
        "patients": bootstrap.patients if predictions.patients_known else None,
        "bootstrap": {"resamples": resamples, "unit": "patient" if predictions.patients_known else "nodule"},
        "caution": caution(predictions),
        "ensembles": ensembles(predictions),
        "seen_in_training": _seen(predictions, bootstrap, seen_in_training(predictions, cases)),
        "auc": float(roc_auc_score(labels, probabilities)),
        "auc_ci95": interval95(drawn["auc"]),
        "auc_ci95_delong": auc_interval95(labels, probabilities),
        "average_precision": float(average_precision_score(labels, probabilities)),
        "average_precision_ci95": interval95(drawn["average_precision"]),
        "brier": float(brier_score_loss(labels, probabilities)),
        "brier_ci95": interval95(drawn["brier"]),
        "expected_calibration_error": float(bins.expected_calibration_error()[0]),
        "expected_calibration_error_ci95": interval95(drawn["expected_calibration_error"]),
        "sensitivity_at_specificity": _at_points(ranking.sensitivity_at(_TARGETS), drawn["sensitivity"]),
        "specificity_at_sensitivity": _at_points(ranking.specificity_at(_TARGETS), drawn["specificity"]),
        "challenge": challenge_figures(labels[submission.listed], submission.listed_probabilities),
        "matching": submission.problems,
        "folds": {
            fold: _group(predictions, bootstrap, np.flatnonzero(np.array(predictions.folds) == fold))
            for fold in sorted(set(predictions.folds or ()), key=_natural)
        },
        "seeds": {
            name: _summary(replace(predictions, probabilities=values), bootstrap, np.arange(len(predictions)))
            for name, values in predictions.seeds.items()
        },
        "subgroups": {
            criterion: {band: _group(predictions, bootstrap, nodules) for band, nodules in bands.items()}
            for criterion, bands in subgroups(predictions).items()
        },
        "attributes": attributes or {},
        "scores": score_figures(predictions, scores, resamples),
    }
    return Evaluation(
        metrics=metrics,
        submission=submission,
        roc_band=_band(drawn["roc"]),
        precision_band=_band(drawn["precision"]),
        reliability=bins,
        observed_band=_band(drawn["observed"]),
    )


def _resampled(predictions: Predictions, bootstrap: PatientBootstrap) -> dict[str, Array]:
    """Return every statistic of every resample, by name: (resamples,) or (resamples, points)."""
    labels, probabilities = predictions.labels, predictions.probabilities
    ranking = Ranking(labels, probabilities)
    squared_errors = (probabilities - labels) ** 2
    parts = []
    for weights in bootstrap.weights():
        curves = ranking.curves(weights)
        bins = reliability(labels, probabilities, weights)
        parts.append(
            {
                "auc": curves.auc(),
                "average_precision": curves.average_precision(),
                "brier": weights @ squared_errors / weights.sum(axis=1),
                "expected_calibration_error": bins.expected_calibration_error(),
                "sensitivity": curves.sensitivity_at(_TARGETS),
                "specificity": curves.specificity_at(_TARGETS),
                "roc": curves.sensitivity_at(1 - GRID),
                "precision": curves.precision_at(GRID),
                "observed": bins.observed,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _at_points(values: Array, drawn: Array) -> dict[str, Any]:
    return {
        name: {"value": float(value), "ci95": interval95(resampled)}
        for name, value, resampled in zip(OPERATING_POINTS, values[0], drawn.T, strict=True)
    }


def _seen(predictions: Predictions, bootstrap: PatientBootstrap, seen: Array) -> dict[str, Any] | None:
    """Return the number of nodules seen in training, and the figures of the others. None if this is not known."""
    if not np.isin(seen, SEEN).any():
        return None
    scan, patient, not_seen = (int(np.count_nonzero(seen == kind)) for kind in SEEN)
    others = np.flatnonzero(~is_seen(seen))
    return {
        "nodules": scan + patient,
        "same_scan": scan,
        "same_patient": patient,
        "unknown": len(seen) - scan - patient - not_seen,
        "others": _group(predictions, bootstrap, others) if len(others) else None,
    }


def _group(predictions: Predictions, bootstrap: PatientBootstrap, nodules: Array) -> dict[str, Any]:
    return _summary(predictions.take(nodules), bootstrap, nodules)


def _summary(part: Predictions, bootstrap: PatientBootstrap, nodules: Array) -> dict[str, Any]:
    """Return the main figures of the nodules at these positions. Some are None if only one class occurs."""
    labels, probabilities = part.labels, part.probabilities
    malignant = int(labels.sum())
    found = {"nodules": len(labels), "malignant": malignant, "brier": float(np.mean((probabilities - labels) ** 2))}
    if malignant in (0, len(labels)):
        without = ("caution", "auc", "auc_ci95", "auc_ci95_delong", "average_precision")
        return found | dict.fromkeys(without)
    ranking = Ranking(labels, probabilities)
    return found | {
        "caution": caution(part),
        "auc": float(roc_auc_score(labels, probabilities)),
        "auc_ci95": interval95(bootstrap.apply(lambda weights: ranking.curves(weights).auc(), nodules)),
        "auc_ci95_delong": auc_interval95(labels, probabilities),
        "average_precision": float(average_precision_score(labels, probabilities)),
    }


def _band(drawn: Array) -> Array:
    """Return the percentile band of resampled points (B, points): (2, points), NaN if there is no interval."""
    return np.array([interval95(column) or (np.nan, np.nan) for column in drawn.T]).T


def _natural(name: str) -> tuple[int, float, str]:
    """Return a sort key that puts folds 1, 2, 10 in this order, and names after numbers."""
    return (0, float(name), "") if name.replace(".", "", 1).isdigit() else (1, 0.0, name)
