import numpy as np
import pytest

from nodulemc.evaluation.predictions import assemble
from nodulemc.evaluation.small_samples import LEAST_PATIENTS, caution


def predictions(malignant, benign, *, patients=True):
    """One nodule for each patient named."""
    labels = [1] * len(malignant) + [0] * len(benign)
    columns = [{"label": str(label)} for label in labels]
    if patients:
        columns = [row | {"PatientID": name} for row, name in zip(columns, [*malignant, *benign], strict=True)]
    return assemble(
        ids=[f"n{k}" for k in range(len(labels))], probabilities=np.full(len(labels), 0.5), columns=columns,
        seeds={}, folds=None, source="made",
    )  # fmt: skip


def names(count, letter="p"):
    return [f"{letter}{k}" for k in range(count)]


def test_enough_patients_of_both_classes_need_no_caution():
    assert caution(predictions(names(LEAST_PATIENTS), names(LEAST_PATIENTS))) is None


@pytest.mark.parametrize(
    ("malignant", "benign", "said"),
    [
        (names(9), names(10), "only 9 patients with malignant nodules: "),
        (names(1) * 12, names(10), "only 1 patient with malignant nodules: "),
        (names(10), names(3) * 5, "only 3 patients with benign nodules: "),
        (names(2), names(3), "only 2 patients with malignant nodules and 3 patients with benign nodules: "),
    ],
)
def test_patients_count_not_nodules(malignant, benign, said):
    assert caution(predictions(malignant, benign)) == f"{said}intervals from so few cannot be relied on"


def test_where_patients_are_unknown_nodules_count():
    said = caution(predictions(names(9), names(10), patients=False))
    assert said == "only 9 malignant nodules: intervals from so few cannot be relied on"
