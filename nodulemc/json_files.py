"""Strict reading and atomic writing of JSON files."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from nodulemc.errors import NoduleMCError


def read_json(path: Path, error: type[NoduleMCError]) -> Any:
    """Parse a UTF-8 JSON file; NaN, Infinity and repeated keys, which JSON does not have, are refused.

    Raises:
        error: the file is missing, unreadable or malformed.
    """
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated_keys)
    except OSError as problem:
        raise error(f"cannot read the file ({problem.strerror})", path, "check that it exists") from problem
    except (ValueError, RecursionError) as problem:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise error(f"malformed JSON ({problem})", path, "repair the file") from problem


def write_json_atomically(path: Path, content: Any, error: type[NoduleMCError]) -> None:
    """Write UTF-8 JSON so that ``path`` holds either the whole content or what it held before.

    Raises:
        error: the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode(), error)


def write_atomically(path: Path, content: bytes, error: type[NoduleMCError]) -> None:
    """Write bytes so that ``path`` holds either the whole content or what it held before.

    Raises:
        error: the file cannot be written.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp makes files private; the reader is usually another user.
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
        temporary = None
    except OSError as problem:
        raise error(
            f"cannot write ({problem.strerror})",
            path,
            "check that the folder exists, is writable and not full",
        ) from problem
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"repeated key {next(k for k in keys if keys.count(k) > 1)!r}")
    return content
