"""A caution where a class has so few patients that no interval can be relied on."""

import numpy as np

from nodulemc.evaluation.predictions import Predictions
from nodulemc.util.text import counted

# Below it, percentile intervals of an AUC are much too narrow, and resamples of one class are many.
LEAST_PATIENTS = 10


def caution(predictions: Predictions) -> str | None:
    """Return a caution for intervals. None if both classes have enough patients.

    Where patients are not known nodules count. A patient with nodules of both classes counts for both.
    """
    few = []
    for label, kind in ((1, "malignant"), (0, "benign")):
        patients = len(np.unique(predictions.patients[predictions.labels == label]))
        if patients < LEAST_PATIENTS:
            with_nodules = f"{counted(patients, 'patient')} with {kind} nodules"
            few.append(with_nodules if predictions.patients_known else counted(patients, f"{kind} nodule"))
    return f"only {' and '.join(few)}: intervals from so few cannot be relied on" if few else None
