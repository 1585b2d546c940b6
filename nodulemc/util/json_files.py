"""Strict reading and atomic writing of JSON files, and checks of the values in them. Needs no torch."""

import json
import math
import re
from pathlib import Path
from typing import Any

from nodulemc.errors import FileError
from nodulemc.limits import MAX_JSON_BYTES
from nodulemc.util.files import read_limited, write_atomically

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> Any:
    """Parse a UTF-8 JSON file.

    Content that is no JSON (NaN, Infinity, half characters) is refused, and so is content without a clear meaning
    (repeated keys, numbers beyond a float's range).

    Raises:
        FileError: the file is missing, unreadable, too large or malformed.
    """
    return parse_json(read_limited(path, MAX_JSON_BYTES), path)


def parse_json(content: bytes, path: Path) -> Any:
    """Parse a JSON file's content as ``read_json`` does.

    Raises:
        FileError: it is malformed.
    """
    try:
        # From bytes, json.loads would also accept UTF-16 and UTF-32, and half characters in any of them.
        text = content.decode("utf-8-sig")
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_refuse_repeated_keys
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:  # Unicode errors and JSONDecodeError are ValueErrors
        raise FileError(f"malformed JSON ({problem})", path, "repair the file") from problem
    return value


def write_json_atomically(path: Path, content: Any) -> None:
    """Write UTF-8 JSON. ``path`` holds either the whole content or its previous content.

    Raises:
        FileError: the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def number(value: Any) -> float:
    """Return a JSON number as a float.

    Raises:
        TypeError: it is something else, even if Python would convert it: true, or "1_0".
        ValueError: it is not finite.
        OverflowError: it is an integer beyond a float's range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.40} is no number")
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def text_or_none(value: Any) -> str | None:
    """Return a JSON string that is not empty, or None for null.

    Raises:
        TypeError: it is something else.
        ValueError: it is empty.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    if not value.strip():
        raise ValueError("an empty text; use null for nothing")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is beyond a float's range")
    return number


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"repeated key {key[:40]!r}")
        content[key] = value
    return content
