"""Case-control cohorts: every malignant nodule, and some of the benign ones as controls.

Training draws both classes equally often, so most benign nodules of a whole cohort are never or once seen; without
them the same time and disk space hold many more malignant ones.
"""

from nodulemc.phantom.patient import Lesion, Patient

# Of a whole cohort's rows, LUNA25's (nodulemc.phantom.malignancy sets it).
MALIGNANT_SHARE = 0.09


def keeps(patient: Patient, scan: int, lesion: Lesion, controls: float | None) -> bool:
    """Whether a row belongs to the cohort.

    Args:
        patient: the row's.
        scan: the row's.
        lesion: the row's.
        controls: expected number of benign rows for each malignant one, None for all rows.
    """
    if controls is None or lesion.label:
        return True
    return bool(patient.control_rng(scan, lesion).random() < controls * MALIGNANT_SHARE / (1 - MALIGNANT_SHARE))
