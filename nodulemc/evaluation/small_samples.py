"""A caution if a class has too few patients for reliable intervals."""

import numpy as np

from nodulemc.evaluation.predictions import Predictions
from nodulemc.util.text import counted

# With fewer patients, percentile intervals of an AUC are much too narrow, and many resamples have only one class.
LEAST_PATIENTS = 10


def caution(predictions: Predictions) -> str | None:
    """Return a caution for intervals. None if both classes have enough patients.

    If patients are not known, nodules are counted. A patient with nodules of both classes counts for both.
    """
    few = []
    for label, kind in ((1, "malignant"), (0, "benign")):
        patients = len(np.unique(predictions.patients[predictions.labels == label]))
        if patients < LEAST_PATIENTS:
            with_nodules = f"{counted(patients, 'patient')} with {kind} nodules"
            few.append(with_nodules if predictions.patients_known else counted(patients, f"{kind} nodule"))
    return f"only {' and '.join(few)}: intervals from so few cannot be relied on" if few else None
