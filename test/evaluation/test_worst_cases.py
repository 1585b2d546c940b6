import base64
import io

import numpy as np
import pytest
from PIL import Image

from nodulemc.evaluation.predictions import assemble
from nodulemc.evaluation.worst_cases import most_wrong

LABELS = [1, 0, 1, 0, 1, 1, 0, 1, 1, 1]
PROBABILITIES = [0.9, 0.2, 0.1, 0.7, 0.3, 0.1, 0.7, 0.8, 0.5, 0.4]


@pytest.fixture
def predictions():
    rows = [{"label": str(label)} for label in LABELS]
    rows[2] |= {"Age_at_StudyDate": "61", "Gender": "Male", "diameter_mm": "7.26"}
    rows[5] |= {"Age_at_StudyDate": "", "diameter_mm": "7"}
    return assemble(
        ids=[f"n{k}" for k in range(len(LABELS))], probabilities=np.array(PROBABILITIES), columns=rows, seeds={},
        folds=None, source="made",
    )  # fmt: skip


def test_the_most_wrong_come_first_and_six_at_most(predictions):
    malignant = most_wrong(predictions, 1, lambda name: None)
    assert [case.name for case in malignant] == ["n2", "n5", "n4", "n9", "n8", "n7"]
    assert [case.probability for case in malignant] == [0.1, 0.1, 0.3, 0.4, 0.5, 0.8]
    assert [case.name for case in most_wrong(predictions, 0, lambda name: None)] == ["n3", "n6", "n1"]


def test_details_are_those_that_the_table_has(predictions):
    first, second, third, *_ = most_wrong(predictions, 1, lambda name: None)
    assert (first.details, second.details, third.details) == ("61 years, Male, 7.3 mm", "7 mm", "")


def picture(url):
    head, _, content = url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_planes_are_cut_through_the_point_with_the_head_up(predictions):
    patch = np.zeros((64, 64, 64), np.float32)
    patch[48:, 32, :32] = 1  # in the coronal plane, high up and on the picture's left
    patch[:16, 48:, 32] = 0.5  # in the sagittal plane, low down and at the back
    (axial, coronal, sagittal), *others = [
        case.pictures and [picture(url) for url in case.pictures]
        for case in most_wrong(predictions, 1, {"n2": patch}.get)
    ]
    assert others == [()] * 5
    assert axial.shape == coronal.shape == sagittal.shape == (160, 160)
    assert axial.max() == 0
    assert coronal[20, 40] == 255
    assert coronal[20, 120] == coronal[140, 40] == 0
    assert sagittal[140, 140] == 128
    assert sagittal[20, 140] == sagittal[140, 20] == 0
