"""The map from an ensemble's probabilities to calibrated ones, as ``ensemble.json`` stores it. Needs no torch.

Fields of the stored map:

- ``method``: "temperature", "platt" or "isotonic".
- ``training_prevalence``: the share of malignant samples in training, 0.5 if both classes are drawn equally often.
- ``fitted_prevalence``: the share of malignant nodules the map was fitted on.
- ``prevalence``: the share of malignant nodules where the probabilities are to be used.
- ``temperature``; or ``slope`` and ``intercept``; or ``knots`` and ``values``: the method's parameters.

Prior correction adds the difference of the prevalences' log-odds to the log-odds (Saerens, Latinne & Decaestecker,
Neural Computation 14 (2002) 21). Every map rises strictly, so the order of nodules stays.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.errors import EnsembleError
from nodulemc.util.json_files import number

METHODS = ("temperature", "platt", "isotonic")
PREVALENCES = ("training_prevalence", "fitted_prevalence", "prevalence")
# Probabilities are kept this far from 0 and 1, where log-odds are infinite.
_MARGIN = 1e-15
# An isotonic map has steps; so much of the uncalibrated probability is blended in to keep the order within a step.
_ORDER_KEEPING = 1e-6
_REMEDY = "set calibration to null and run `nodulemc calibrate` again"


def check_calibration(calibration: Any, source: object) -> None:
    """Check a stored map before it is used; None (no map) is allowed.

    Raises:
        EnsembleError: a field is missing or out of range, or the map would not keep the order of nodules.
    """
    if calibration is None:
        return
    try:
        found = all(0 < number(calibration[name]) < 1 for name in PREVALENCES) and _keeps_order(calibration)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise EnsembleError(f"malformed calibration ({error!r})", source, _REMEDY) from error
    if not found:
        raise EnsembleError("a calibration parameter is out of range", source, _REMEDY)


def describe_calibration(calibration: Mapping[str, Any]) -> str:
    """Return the words beside calibrated numbers: the method and the share of malignant nodules they are for."""
    return f"{calibration['method']}, for a prevalence of {calibration['prevalence']:.3g}"


def apply_calibration(probabilities: Array | float, calibration: Mapping[str, Any] | None) -> Array:
    """Return calibrated probabilities, float64 of the same shape; without a calibration, the given ones.

    Args:
        probabilities: The ensemble's vote on malignancy, 0…1.
        calibration: The stored map, checked by ``check_calibration`` or made by ``nodulemc calibrate``.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if calibration is None:
        return probabilities
    fitted = log_odds(calibration["fitted_prevalence"])
    method = calibration["method"]
    if method == "temperature":
        corrected = log_odds(probabilities) + fitted - log_odds(calibration["training_prevalence"])
        calibrated = corrected / calibration["temperature"]
    elif method == "platt":
        calibrated = calibration["slope"] * log_odds(probabilities) + calibration["intercept"]
    elif method == "isotonic":
        steps = np.interp(probabilities, calibration["knots"], calibration["values"])
        calibrated = log_odds((1 - _ORDER_KEEPING) * steps + _ORDER_KEEPING * probabilities)
    else:
        raise ValueError(f"calibration method {method!r}")
    return _sigmoid(calibrated + log_odds(calibration["prevalence"]) - fitted)


def _keeps_order(calibration: Mapping[str, Any]) -> bool:
    method = calibration["method"]
    if method == "temperature":
        return number(calibration["temperature"]) > 0
    if method == "platt":
        return number(calibration["slope"]) > 0 and math.isfinite(number(calibration["intercept"]))
    if method == "isotonic":
        knots, values = (np.array([number(v) for v in calibration[name]]) for name in ("knots", "values"))
        if knots.shape != values.shape or not knots.size:
            return False
        return bool((np.diff(knots) > 0).all() and (np.diff(values) >= 0).all() and 0 <= values[0] <= values[-1] <= 1)
    raise ValueError(f"method {method!r}")


def log_odds(probabilities: Array | float) -> Array:
    """Return the log-odds of probabilities; those of 0 and 1 are finite, too."""
    kept = np.clip(probabilities, _MARGIN, 1 - _MARGIN)
    odds: Array = np.log(kept) - np.log1p(-kept)
    return odds


def _sigmoid(log_odds: Array) -> Array:
    # exp of a negative number only: it cannot overflow.
    decay = np.exp(-np.abs(log_odds))
    probabilities: Array = np.where(log_odds >= 0, 1, decay) / (1 + decay)
    return probabilities
