"""Fitting a calibration map to validation predictions, and measuring the gain on unseen patients' probabilities."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from nodulemc.arrays import Array
from nodulemc.ensemble.calibration import apply_calibration, log_odds
from nodulemc.errors import ConfigError, TableError
from nodulemc.evaluation.predictions import Predictions
from nodulemc.evaluation.reliability import reliability

_TEMPERATURES = (0.01, 100.0)
_FOLDS = 5


def fit_calibration(
    predictions: Predictions, method: str, *, training_prevalence: float, prevalence: float | None = None
) -> dict[str, Any]:
    """Fit a calibration map.

    The map is fitted by maximum likelihood ("temperature": Guo et al., ICML 2017; "platt": Platt 1999) or by isotonic
    regression ("isotonic": Zadrozny & Elkan, KDD 2002).

    Args:
        predictions: Predictions of nodules that were not in the training data.
        method: One of ``nodulemc.ensemble.calibration.METHODS``.
        training_prevalence: The share of malignant samples in training, 0.5 if classes were drawn evenly.
        prevalence: The share of malignant nodules where the probabilities will be used (default: as in
            ``predictions``).

    Returns:
        The map, in the form described by ``nodulemc.ensemble.calibration``.

    Raises:
        TableError: malignant nodules do not get the higher probabilities, so that a map would reverse the order.
        ConfigError: a prevalence is not between 0 and 1.
    """
    fitted = float(predictions.labels.mean())
    prevalences = {
        "training_prevalence": training_prevalence,
        "fitted_prevalence": fitted,
        "prevalence": fitted if prevalence is None else prevalence,
    }
    for name, value in prevalences.items():
        if not 0 < value < 1:
            raise ConfigError(f"{name.replace('_', ' ')} {value}", "calibrate", "give a share between 0 and 1")
    fit = {"temperature": _temperature, "platt": _platt, "isotonic": _isotonic}[method]
    shift = log_odds(fitted) - log_odds(training_prevalence)
    parameters = fit(predictions.labels, predictions.probabilities, float(shift))
    if roc_auc_score(predictions.labels, predictions.probabilities) <= 0.5 or parameters.get("slope", 1) <= 0:
        raise TableError(
            "malignant nodules do not get higher probabilities than benign ones",
            predictions.source,
            "check labels and predictions; a map that keeps the order cannot help",
        )
    return {"method": method, **prevalences, "fitted_nodules": len(predictions), **parameters}


def held_out(predictions: Predictions, method: str, *, training_prevalence: float) -> Array:
    """Return probabilities calibrated by maps fitted on other patients' nodules (five folds), float64 (n,).

    Raises:
        TableError: a class has too few patients for five folds, or as ``fit_calibration``.
    """
    calibrated = np.empty(len(predictions))
    for label in (0, 1):
        if len(np.unique(predictions.patients[predictions.labels == label])) < _FOLDS:
            raise TableError(
                f"less than {_FOLDS} patients with label {label}", predictions.source, "calibrate on more patients"
            )
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for fitting, rest in folds.split(predictions.probabilities, predictions.labels, predictions.patients):
        calibration = fit_calibration(predictions.take(fitting), method, training_prevalence=training_prevalence)
        calibrated[rest] = apply_calibration(predictions.probabilities[rest], calibration)
    return calibrated


def calibration_figures(labels: Array, probabilities: Array) -> dict[str, float]:
    """Return Brier score, log loss and expected calibration error of probabilities (n,) for labels int (n,)."""
    bins = reliability(labels, probabilities, np.ones((1, len(labels))))
    return {
        "brier": float(brier_score_loss(labels, probabilities)),
        "log_loss": float(log_loss(labels, probabilities)),
        "expected_calibration_error": float(bins.expected_calibration_error()[0]),
    }


def _temperature(labels: Array, probabilities: Array, shift: float) -> dict[str, Any]:
    signed = np.where(labels == 1, 1, -1) * (log_odds(probabilities) + shift)
    # The likelihood has one maximum in 1 / temperature.
    found = minimize_scalar(
        lambda inverse: np.logaddexp(0, -inverse * signed).mean(),
        bounds=(1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return {"temperature": float(1 / found.x)}


def _platt(labels: Array, probabilities: Array, shift: float) -> dict[str, Any]:
    del shift  # the intercept holds any shift
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(log_odds(probabilities)[:, None], labels)
    return {"slope": float(model.coef_[0, 0]), "intercept": float(model.intercept_[0])}


def _isotonic(labels: Array, probabilities: Array, shift: float) -> dict[str, Any]:
    del shift  # any rising map of the probabilities gives the same steps
    model = IsotonicRegression(y_min=0, y_max=1).fit(probabilities, labels)
    return {"knots": model.X_thresholds_.tolist(), "values": model.y_thresholds_.tolist()}
