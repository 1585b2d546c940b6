from argparse import ArgumentTypeError
from datetime import date

import pytest

from nodulemc.errors import ConfigError
from nodulemc.option_types import UnusableValueError, iso_date, number, whole_number
from nodulemc.usage import Parser


def test_bounds_belong_to_the_range():
    assert [whole_number(1, 3)(text) for text in "123"] == [1, 2, 3]
    assert [number(0, 1)(text) for text in ("0", "0.5", "1e0")] == [0, 0.5, 1]
    assert whole_number(5)(str(10**30)) == 10**30


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (whole_number(1, 3), "0", "1 to 3"),
        (whole_number(1, 3), "4", "1 to 3"),
        (whole_number(1), "-1", "1 or more"),
        (number(0, 0.5), "nan", "0 to 0.5"),
        (number(0, 0.5), "inf", "0 to 0.5"),
        (iso_date, "2021-02-29", "a date as YYYY-MM-DD"),
        (iso_date, "20210228", "a date as YYYY-MM-DD"),
    ],
)
def test_anything_else_is_refused_with_what_to_give(kind, text, message):
    with pytest.raises(UnusableValueError, match=f"^{message}$"):
        kind(text)


@pytest.mark.parametrize(("kind", "text"), [(whole_number(1, 3), "2.0"), (whole_number(1), ""), (number(0), "half")])
def test_no_number_is_argparse_s_error(kind, text):
    with pytest.raises(ArgumentTypeError, match=r"no .*number"):
        kind(text)


def test_a_date():
    assert iso_date("2020-02-29") == date(2020, 2, 29)


def test_each_of_several_values_is_checked_and_a_default_is_not():
    parser = Parser("p")
    parser.add_argument("--seeds", type=whole_number(1, 3), nargs="+", default=[9])
    assert parser.parse_args([]).seeds == [9]
    with pytest.raises(ConfigError, match=r"^--seeds 4: p: give 1 to 3$"):
        parser.parse_args(["--seeds", "1", "4"])
