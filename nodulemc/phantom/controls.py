"""Case-control cohorts: every malignant nodule, and some of the benign ones as controls.

Training draws both classes equally often. So most benign nodules of a whole cohort are seen once or never. Without
them, the same time and disk space hold many more malignant nodules.
"""

from nodulemc.phantom.patient import Lesion, Patient

# The share of a whole cohort's rows, as in LUNA25 (nodulemc.phantom.malignancy sets it).
MALIGNANT_SHARE = 0.09


def keeps(patient: Patient, scan: int, lesion: Lesion, controls: float | None) -> bool:
    """Return whether a row belongs to the cohort.

    Args:
        patient: The row's patient.
        scan: The row's scan.
        lesion: The row's lesion.
        controls: The expected number of benign rows for each malignant one. None for all rows.
    """
    if controls is None or lesion.label:
        return True
    return bool(patient.control_rng(scan, lesion).random() < controls * MALIGNANT_SHARE / (1 - MALIGNANT_SHARE))
