"""Finding evaluated nodules from scans or patients that the ensemble was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.columns import SEEN_IN_TRAINING, UID
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ensemble.trained_cases import WARNINGS, TrainedCases, strongest
from nodulemc.evaluation.predictions import Predictions, patient_names
from nodulemc.util.text import counted


def seen_in_training(predictions: Predictions, cases: TrainedCases | None) -> Array:
    """Return for each nodule one of ``nodulemc.ensemble.trained_cases.SEEN``, or None if unknown; object (n,).

    Args:
        predictions: The predictions. They may state this themselves, as a cohort's do. SeriesInstanceUID and PatientID
            are used, too.
        cases: The training cases of the ensemble. None if they are not known.
    """
    stated = [cells.get(SEEN_IN_TRAINING) for cells in predictions.columns]
    if cases is not None:
        scans = [cases.seen(scan) for scan in _scans(predictions)]
        stated = [strongest(both) for both in zip(stated, scans, strict=True)]
    return np.array(stated, object)


def is_seen(seen: Array) -> Array:
    """Return which nodules are from scans or patients that the ensemble was trained on, bool (n,)."""
    return np.isin(seen, list(WARNINGS))


def in_words(metrics: dict[str, Any]) -> str | None:
    """Return one line on ``seen_in_training`` of ``metrics.json``. None if no nodule is known to have been seen."""
    figures, total = metrics["seen_in_training"], metrics["nodules"]
    if figures is None or not figures["nodules"]:
        return None
    number, others = figures["nodules"], figures["others"]
    auc = "none" if others is None or others["auc"] is None else f"{others['auc']:.4f}"
    return (
        f"{number} of {counted(total, 'nodule')} {'is of a patient' if number == 1 else 'are of patients'} "
        f"that the ensemble was trained on: {figures['same_scan']} by the scan, "
        f"{figures['same_patient']} by the PatientID alone; AUC without them: {auc}"
    )


def _scans(predictions: Predictions) -> list[ScanIds]:
    known = patient_names(predictions.ids, predictions.columns, predictions.source)
    patients: Sequence[str | None] = known or [None] * len(predictions)
    return [
        ScanIds(frozenset({cells[UID]} if cells.get(UID) else ()), patient)
        for cells, patient in zip(predictions.columns, patients, strict=True)
    ]
