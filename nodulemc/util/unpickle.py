"""Reading pickled dicts of arrays and numbers, without unpickling anything.

Python's unpickler calls the functions that a file names. NumPy's functions that rebuild arrays trust their arguments: a
forged dtype makes them follow arbitrary pointers. A few damaged bytes make either of them ask for gigabytes. So the
stream is followed here, step by step, through the few steps that such a file needs (the standard library's pickletools
describes them). Anything else is refused. Formats:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.errors import ImageError

# The challenge's metadata take a few hundred bytes.
_MOST_BYTES = 1 << 20
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _RefusedError(ValueError):
    """The file holds something else."""


@dataclass
class _Dtype:
    """A call of numpy.dtype."""

    code: str
    state: tuple[Any, ...] = (3, "=")

    def real(self) -> np.dtype[Any]:
        """Return the dtype, if it is one of numbers."""
        if _is(str, self.code) not in _NUMBERS:
            raise _RefusedError(f"dtype {self.code!r}")
        return np.dtype(self.code).newbyteorder(self.state[1] if self.state[1] in "<>" else "=")


@dataclass
class _Array:
    """A call of the function that rebuilds arrays. Its state is version, shape, dtype, column order and content."""

    state: tuple[Any, ...] = ()

    def real(self) -> Array:
        """Return the array of numbers."""
        _, shape, dtype, column_order, content = self.state
        return np.frombuffer(content, _is(_Dtype, dtype).real()).reshape(shape, order="F" if column_order else "C")


@dataclass
class _Scalar:
    """A call of the function that makes NumPy scalars."""

    dtype: _Dtype
    content: bytes

    def real(self) -> int | float | bool:
        """Return the number."""
        number: int | float | bool = np.frombuffer(self.content, _is(_Dtype, self.dtype).real())[0].item()
        return number


@dataclass(frozen=True)
class _Name:
    """A name that a file may mention, the result of calling it, and the number of arguments that the result uses."""

    record: Callable[..., Any] | None = None
    arguments: int = 0


# NumPy 1 and 2 use different names.
_NAMES = {
    "numpy.ndarray": _Name(),
    "numpy.dtype": _Name(_Dtype, 1),
    "numpy.core.multiarray._reconstruct": _Name(_Array, 0),
    "numpy._core.multiarray._reconstruct": _Name(_Array, 0),
    "numpy.core.multiarray.scalar": _Name(_Scalar, 2),
    "numpy._core.multiarray.scalar": _Name(_Scalar, 2),
}


def read_plain_dict(path: Path) -> dict[str, Any]:
    """Read a .npy file that holds one pickled dict of arrays and numbers. Nothing in the file is executed.

    Raises:
        ImageError: the file is missing or damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise _RefusedError(f"more than {_MOST_BYTES} bytes")
        array = _is(_Array, _follow(_after_header(content)))
        _, shape, _, _, items = array.state
        if shape != () or not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
            raise _RefusedError("no single dict")
        return {key: _number_or_array(value) for key, value in items[0].items()}
    # The errors of a damaged stream, whose steps do not fit the previous ones.
    except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ImageError(
            f"cannot read the metadata ({error or type(error).__name__})", path, "download the file again"
        ) from error


def read_nested_arrays(stream: bytes) -> dict[str, Any]:
    """Read a pickled dict, whose values are arrays or such dicts again. Nothing in the stream is executed.

    Raises:
        ValueError: the stream is damaged, or holds anything else.
    """
    try:
        return _arrays(_is(dict, _follow(stream)))
    except (TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"a damaged pickle ({error or type(error).__name__})") from error


def _arrays(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _arrays(value) if isinstance(value, dict) else _is(_Array, value).real() for key, value in content.items()
    }


def _after_header(content: bytes) -> bytes:
    """Return the bytes after a .npy file's header, whose length takes 2 bytes in version 1 and 4 in later ones."""
    file = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(file)
    file.seek(int.from_bytes(file.read(2 if major == 1 else 4), "little"), io.SEEK_CUR)
    return file.read()


def _number_or_array(value: Any) -> Any:
    if isinstance(value, (_Array, _Scalar)):
        return value.real()
    if isinstance(value, (int, float)):
        return value
    raise _RefusedError(f"a {type(value).__name__} in the dict")


def _follow(stream: bytes) -> Any:
    """Return the object that a pickle describes."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = marks.pop()
        items = stack[place:]
        del stack[place:]
        return items

    for step, argument, _ in pickletools.genops(stream):
        match step.name:
            case "PROTO" | "FRAME":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(step.name == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(step.name[-1]) :] = [tuple(stack[-int(step.name[-1]) :])]
            case "APPEND":
                item = stack.pop()
                _is(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _is(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _is(dict, stack[-1])[_is(str, key)] = value
            case "SETITEMS":
                items = since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _is(dict, stack[-1])[_is(str, key)] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[_is(int, argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[_is(int, argument)])
            case "GLOBAL":
                stack.append(_allowed(_is(str, argument).replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_allowed(f"{_is(str, module)}.{_is(str, name)}"))
            case "REDUCE":
                arguments, called = _is(tuple, stack.pop()), _is(_Name, stack.pop())
                if called.record is None:
                    raise _RefusedError("a call of a class")
                stack.append(called.record(*arguments[: called.arguments]))
            case "BUILD":
                state = stack.pop()
                _is((_Array, _Dtype), stack[-1]).state = _is(tuple, state)
            case "STOP":
                return stack.pop()
            case _:
                raise _RefusedError(f"it asks for {step.name}")
    raise _RefusedError("it has no end")


def _is(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise _RefusedError(f"a {type(value).__name__} in the wrong place")
    return value


def _allowed(name: str) -> _Name:
    if name not in _NAMES:
        raise _RefusedError(f"it asks for {name}")
    return _NAMES[name]
