"""Command lines: help that fits the terminal, and usage errors in the one-line form of all errors."""

import argparse
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from nodulemc.errors import ConfigError
from nodulemc.option_types import UnusableValueError, any_number, any_whole_number

_OPTION = re.compile(r"--?[a-zA-Z][^\s=]*")
_FEW = 4  # the largest number of listed names
_ALIKE = 0.7  # from this ratio of difflib on, a name may be misspelled


class Parser(argparse.ArgumentParser):
    """A parser whose options cannot be abbreviated. An error is raised as a ConfigError instead of printed."""

    def __init__(self, prog: str, description: str | None = None, **options: Any) -> None:
        super().__init__(prog, description=description, formatter_class=_Help, allow_abbrev=False, **options)
        self.register("type", int, any_whole_number)
        self.register("type", float, any_number)

    def parse_args(  # type: ignore[override]  # narrower: the words are given, and the result's type is fixed
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the words of a command line.

        Raises:
            ConfigError: they do not fit the parser's arguments.
            SystemExit: help or the version was asked for and is printed.
        """
        # Otherwise argparse would report a missing argument, although the argument's option is only misspelled.
        for word in takewhile(lambda word: word != "--", args):
            name = word.partition("=")[0]
            if _OPTION.fullmatch(name) and name not in self._option_string_actions:
                raise self._unknown(f"unknown option {name}", name, self._option_string_actions)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with argparse's message."""
        remedy = f"{self._order(message)}see `{self.prog} --help`"
        raise ConfigError(message.removeprefix("argument "), self.prog, remedy)

    def _order(self, message: str) -> str:
        """Return a remedy if an option with any number of words may have taken the last word for its own."""
        takers = [action.option_strings[0] for action in self._get_optional_actions() if action.nargs == "+"]
        missing = [str(action.metavar) for action in self._get_positional_actions() if f" {action.metavar}" in message]
        return f"give {' '.join(missing)} before {' and '.join(takers)}; " if takers and missing else ""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except UnusableValueError as error:
            raise ConfigError(f"{action.option_strings[0]} {arg_string}", self.prog, f"give {error}") from error

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in (known := list(action.choices)):
            name = action.option_strings[0] if action.option_strings else f"unknown {action.dest}"
            raise self._unknown(f"{name} {value}", value, known)

    def _unknown(self, what: str, given: str, known: Collection[str]) -> ConfigError:
        from difflib import get_close_matches  # only this needs it

        if len(known) <= _FEW:
            return ConfigError(what, self.prog, f"use {', '.join(known)}")
        names = {name.lstrip("-"): name for name in known}
        close = get_close_matches(given.lstrip("-"), names, 1, _ALIKE)
        guess = f"did you mean {names[close[0]]}? " if close else ""
        return ConfigError(what, self.prog, f"{guess}see `{self.prog} --help`")


class _Help(argparse.HelpFormatter):
    """Wraps each paragraph to the terminal. A paragraph with an indented line, such as an example, stays as it is."""

    def _format_usage(self, *args: Any) -> str:
        import textwrap  # scoring a case does not need it

        usage = super()._format_usage(*args)
        if all(len(line) <= self._width for line in usage.splitlines()):
            return usage
        # On a narrow terminal, argparse's indent leaves too little room, and argparse breaks no group.
        words = re.sub(r"(--[\w-]+) (?=\w|{)", "\\1\xa0", " ".join(usage.split()))
        wrapper = textwrap.TextWrapper(
            self._width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        lines = wrapper.fill(words)
        return lines.replace("\xa0", " ") + "\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        paragraphs = re.split(r"\n\s*\n", text.strip())
        return "\n\n".join(
            paragraph if re.search(r"^ ", paragraph, re.MULTILINE) else textwrap.fill(paragraph, width)
            for paragraph in paragraphs
        )
