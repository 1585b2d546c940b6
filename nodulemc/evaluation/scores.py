"""Comparing the network's probability with other scores: a risk model's, a size, or any column that ranks nodules.

Each score is judged on the nodules that have it. There it is compared with the network on the same resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nodulemc.columns import LUNG_RADS, canonical
from nodulemc.errors import TableError
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.compare import compare
from nodulemc.evaluation.delong import auc_interval95
from nodulemc.evaluation.predictions import Predictions
from nodulemc.evaluation.weighted_curves import Ranking
from nodulemc.measure.risk import CATEGORIES
from nodulemc.util.text import plain_number

_FIGURES = (
    "caution", "auc", "auc_ci95", "auc_ci95_delong", "network_auc", "difference", "difference_ci95", "p",
    "difference_ci95_delong", "p_delong",
)  # fmt: skip


def score_figures(predictions: Predictions, columns: Sequence[str], resamples: int) -> dict[str, dict[str, Any]]:
    """Return the AUC of each column, the network's AUC on the same nodules, and the network's minus the column's.

    Figures are None if the nodules that have the score are of one class.

    Args:
        predictions: The predictions, with the columns of their files and of the table.
        columns: The names of the columns that rank nodules. Higher values mean more likely malignant.
        resamples: The number of resamples of patients.

    Raises:
        TableError: no nodule has such a column, or a cell of it is no number.
    """
    return {name: _figures(predictions, name, resamples) for name in canonical(columns)}


def _figures(predictions: Predictions, column: str, resamples: int) -> dict[str, Any]:
    values = np.array([_value(predictions, k, column) for k in range(len(predictions))])
    there = np.flatnonzero(~np.isnan(values))
    if not len(there):
        raise TableError(
            f"no nodule has a {column}", predictions.source, "name a column of the predictions or the table"
        )
    part = predictions.take(there)
    part = replace(part, patients=np.unique(part.patients, return_inverse=True)[1])
    counts = {"nodules": len(part), "malignant": int(part.labels.sum())}
    if counts["malignant"] in (0, len(part)):
        return counts | dict.fromkeys(_FIGURES)
    found = compare(part, replace(part, probabilities=values[there]), resamples)
    ranking = Ranking(part.labels, values[there])
    drawn = PatientBootstrap(part.patients, resamples).apply(lambda weights: ranking.curves(weights).auc())
    figures = (
        found.caution, found.auc[1], interval95(drawn), auc_interval95(part.labels, values[there]), found.auc[0],
        found.difference, found.bootstrap_ci95, found.bootstrap_p, found.delong_ci95, found.delong_p,
    )  # fmt: skip
    return counts | dict(zip(_FIGURES, figures, strict=True))


def _value(predictions: Predictions, k: int, column: str) -> float:
    """Return a nodule's score, NaN if it has none. The score of a Lung-RADS category is its rank."""
    text = predictions.columns[k].get(column, "")
    if column == LUNG_RADS and text in CATEGORIES:
        return float(CATEGORIES.index(text))
    value = plain_number(text) if text else math.nan
    if value is None:
        raise TableError(
            f"{column} is {text!r}", f"nodule {predictions.ids[k]}", "give a number, or leave the cell empty"
        )
    return value
