import io

import pandas as pd
import pytest

from nodulemc.errors import TableError
from nodulemc.util.identifiers import EXACT_BITS, restored, spellings


def as_pandas_writes(numbers):
    """A column's cells after pandas has made floats of it, as it does where there are gaps."""
    file = io.StringIO()
    pd.DataFrame({"id": pd.Series(numbers, dtype=float), "other": 1}).to_csv(file, index=False)
    return [line.split(",")[0] for line in file.getvalue().splitlines()[1:]]


def cells_of(cells):
    return restored("AnnotationID", cells, lambda k: f"row {k + 2}")


def test_whole_numbers_with_gaps_have_their_digits_again():
    largest = 2 ** EXACT_BITS[64] - 1
    written = as_pandas_writes([100570, None, largest, 0])
    assert written == ["100570.0", "", f"{largest}.0", "0.0"]
    assert cells_of(written) == ["100570", "", str(largest), "0"]


@pytest.mark.parametrize("cells", [["7.0", "a.0"], ["7.0", "7.50"], ["7.0", "7"], ["1.2.840.0", "3.0"], ["", "x"]])
def test_a_column_that_is_not_all_whole_floats_stays(cells):
    assert cells_of(cells) == cells


@pytest.mark.parametrize("number", [2 ** EXACT_BITS[64], 1.2e18, 1.3e30])
def test_a_number_that_has_lost_digits_is_refused(number):
    written = as_pandas_writes([12, number])
    with pytest.raises(TableError, match=r"AnnotationID is \S+, a rounded number: row 3: store identifiers as text"):
        cells_of(written)


def test_spellings_are_those_that_are_restored():
    assert spellings("100570") == {"100570", "100570.0"}
    assert spellings("1.2.840") == {"1.2.840"}
    for name in spellings("100570"):
        assert list(cells_of([name])) == ["100570"]
