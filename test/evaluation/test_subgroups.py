import numpy as np
import pytest

from nodulemc.errors import TableError
from nodulemc.evaluation.predictions import assemble
from nodulemc.evaluation.subgroups import subgroups


def with_column(column, values):
    columns = [{"label": str(k % 2), column: value} for k, value in enumerate(values)]
    return assemble(
        ids=[f"n{k}" for k in range(len(values))],
        probabilities=np.full(len(values), 0.5),
        columns=columns,
        seeds={},
        folds=None,
        source="test",
    )


def bands(column, values, criterion):
    return {name: index.tolist() for name, index in subgroups(with_column(column, values))[criterion].items()}


def test_age_bands_hold_their_lower_edge():
    found = bands("Age_at_StudyDate", ["54", "55", "59", "60", "69", "70", "88"], "age")
    assert found == {"<55": [0], "55-59": [1, 2], "60-64": [3], "65-69": [4], ">=70": [5, 6]}


def test_diameter_bands_hold_their_lower_edge():
    found = bands("diameter_mm", ["5.99", "6", "7.9", "8", "15.0", ""], "diameter_mm")
    assert found == {"<6": [0], "6-<8": [1, 2], "8-<15": [3], ">=15": [4], "unknown": [5]}


def test_sex():
    assert bands("Gender", ["Male", "Female", "Male", ""], "sex") == {"Female": [1], "Male": [0, 2], "unknown": [3]}


def test_criteria_that_the_table_does_not_have_are_left_out():
    assert list(subgroups(with_column("Gender", ["Male", "Female"]))) == ["sex"]


@pytest.mark.parametrize("value", ["old", "nan", "inf"])
def test_a_value_that_is_no_number(value):
    with pytest.raises(TableError, match=f"Age_at_StudyDate is '{value}': nodule n1"):
        subgroups(with_column("Age_at_StudyDate", ["60", value]))
