"""The type of NumPy's arrays; docstrings give their axes, number format and units."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]  # numpy.typing.NDArray[Any], without its import's time
