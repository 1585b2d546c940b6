"""The ensemble that made some predictions, as the predictions state it."""

from collections import Counter
from typing import Any

from nodulemc.columns import CALIBRATION, ENSEMBLE, TRAINED_ON
from nodulemc.ensemble.manifest import origin_of
from nodulemc.evaluation.predictions import Predictions

_COLUMNS = (ENSEMBLE, TRAINED_ON, CALIBRATION)


def ensembles(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the ensembles that the predictions name, each with its number of nodules. Empty if they name none.

    Each has the ``sha256`` of its ensemble.json, ``trained_on`` and ``calibration``; values that are not stated are
    None. Predictions that state their calibration, but not their ensemble, have no ``sha256``.
    """
    found = Counter(tuple(cells.get(column) for column in _COLUMNS) for cells in predictions.columns)
    return [
        {"sha256": sha256, "trained_on": trained_on, "calibration": calibration, "nodules": nodules}
        for (sha256, trained_on, calibration), nodules in found.items()
        if sha256 or calibration
    ]


def in_words(ensemble: dict[str, Any]) -> str:
    """Describe one of them in a sentence."""
    calibrated = f"calibrated: {ensemble['calibration']}" if ensemble["calibration"] else "not calibrated"
    if ensemble["sha256"] is None:
        return f"an ensemble that is not named, {calibrated}"
    return f"ensemble {ensemble['sha256'][:12]} (SHA-256), {origin_of(ensemble['trained_on'])}, {calibrated}"
