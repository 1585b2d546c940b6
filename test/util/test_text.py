import pytest

from nodulemc.util.text import counted, plain_number, plural


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), (" -110.62 ", -110.62), ("+.5", 0.5), ("2.", 2), ("3e1", 30), ("1E-3", 0.001)]
)
def test_decimal_numbers(text, number):
    assert plain_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "nan", "inf", "-Infinity", "1_0", "١", "1,5", "1 2", "0x10", "1e999", "1\n", "--1", "e5", "."],
)
def test_what_is_no_plain_finite_number(text):
    assert plain_number(text) is None


def test_one_is_no_plural():
    assert [counted(number, "scan") for number in (0, 1, 2, 1000)] == ["0 scans", "1 scan", "2 scans", "1000 scans"]
    assert plural("line", 1) == "line"
