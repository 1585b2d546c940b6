import pytest

from nodulemc.phantom.controls import keeps
from nodulemc.phantom.patient import Patient


@pytest.fixture(scope="module")
def rows():
    """Patient, scan and lesion of a whole cohort's rows."""
    patients = (Patient(3, index) for index in range(3000))
    return [(patient, scan, lesion) for patient in patients for scan in patient.scans for lesion in patient.shown(scan)]


def test_without_controls_all_rows_stay(rows):
    assert all(keeps(*row, None) for row in rows)


@pytest.mark.parametrize("controls", [2.0, 0.5])
def test_every_malignant_nodule_stays_and_about_as_many_benign_ones_as_asked(rows, controls):
    kept = [row for row in rows if keeps(*row, controls)]
    malignant = sum(lesion.label for _, _, lesion in rows)
    assert sum(lesion.label for _, _, lesion in kept) == malignant
    # The share of malignant rows is 9 % in the long run only; both counts have sampling errors of a few percent.
    assert len(kept) / malignant - 1 == pytest.approx(controls, rel=0.2)


def test_fewer_controls_are_some_of_more(rows):
    few, many = ({k for k, row in enumerate(rows) if keeps(*row, controls)} for controls in (0.5, 2.0))
    assert few < many
