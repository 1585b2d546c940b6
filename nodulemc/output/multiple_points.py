"""Grand-Challenge's output: "Multiple points", each with its probability."""

from collections.abc import Sequence
from typing import Any

from nodulemc.prediction import NodulePrediction

OUTPUT_NAME = "lung-nodule-malginancy-likelihoods.json"  # Grand-Challenge's spelling


def multiple_points(predictions: Sequence[NodulePrediction]) -> dict[str, Any]:
    """Return the file's content; a nodule without a name stays without one."""
    return {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": [
            ({} if p.nodule.name is None else {"name": p.nodule.name})
            | {"point": list(p.nodule.point), "probability": p.probability}
            for p in predictions
        ],
        "version": {"major": 1, "minor": 0},
    }
