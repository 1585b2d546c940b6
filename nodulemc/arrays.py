"""The type of NumPy's arrays; docstrings give their axes, number format and units."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
