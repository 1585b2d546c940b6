"""The colour of a probability in 3D Slicer: from blue through yellow to red, which the colour-blind can tell apart."""

import numpy as np

_STOPS = (0.0, 0.5, 1.0)
_COLOURS = np.array([(0.15, 0.45, 0.95), (0.98, 0.85, 0.20), (0.85, 0.10, 0.10)])


def colour(probability: float) -> tuple[float, ...]:
    """Return red, green and blue, 0…1, for a probability."""
    return tuple(round(float(np.interp(probability, _STOPS, part)), 4) for part in _COLOURS.T)
