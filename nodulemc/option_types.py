"""The allowed values of command-line options, as argparse types.

A type's error states the allowed values. The parser adds the option and command, and the given value.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import date
from typing import TypeVar

Number = TypeVar("Number", int, float)

_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)


class UnusableValueError(Exception):
    """An option's value cannot be used; the text says what to give instead."""


def any_whole_number(text: str) -> int:
    """Return a whole number.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _converted(int, text, "no whole number")


def any_number(text: str) -> float:
    """Return a number. NaN and infinity are numbers, too.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _converted(float, text, "no number")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for whole numbers from ``least`` to ``most``. It raises UnusableValueError for others."""
    return lambda text: _checked(any_whole_number(text), least, most)


def number(least: float, most: float | None = None) -> Callable[[str], float]:
    """Return a type for numbers from ``least`` to ``most``. It raises UnusableValueError for others and for NaN."""
    return lambda text: _checked(any_number(text), least, most)


def iso_date(text: str) -> date:
    """Return a date from YYYY-MM-DD. The standard library's reader would also accept other forms.

    Raises:
        UnusableValueError: it is none.
    """
    match = _DATE.fullmatch(text)
    try:
        return date(*map(int, match.groups() if match else ()))
    except (TypeError, ValueError) as error:  # TypeError is for no match
        raise UnusableValueError("a date as YYYY-MM-DD") from error


SEED = whole_number(0, 2**32 - 1)  # NumPy's legacy generator, which Accelerate also sets, takes no other
WORKERS = whole_number(1, 1024)


def _converted(convert: Callable[[str], Number], text: str, complaint: str) -> Number:
    try:
        return convert(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is {complaint}") from error


def _checked(value: Number, least: Number, most: Number | None) -> Number:
    if value >= least and (most is None or value <= most):
        return value
    raise UnusableValueError(f"{least} or more" if most is None else f"{least} to {most}")
