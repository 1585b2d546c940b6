"""Results as 3D Slicer's markups: points that show each nodule's probability.

A point list has one colour, so each nodule has a list of its own. Sources: Markups schema 1.0.3 and
vtkSlicerMarkupsLogic::LoadMarkupsFromJson, which loads all lists of a file (https://github.com/Slicer/Slicer).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.output.slicer_colours import colour
from nodulemc.prediction import NodulePrediction
from nodulemc.util.json_files import write_json_atomically

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_markups(path: Path, predictions: Sequence[NodulePrediction], manifest: EnsembleManifest) -> None:
    """Write a .mrk.json file, atomically.

    Args:
        path: The file.
        predictions: The predictions for one CT.
        manifest: The ensemble's manifest.

    Raises:
        FileError: the file cannot be written.
    """
    markups = [_markup(k, prediction, manifest.member_names) for k, prediction in enumerate(predictions, start=1)]
    write_json_atomically(path, {"@schema": _SCHEMA, "markups": markups})


def _markup(position: int, prediction: NodulePrediction, members: Sequence[str]) -> dict[str, Any]:
    """Return a list of one point; ``position`` stands in for a missing name."""
    label = f"{prediction.nodule.name or position}: {prediction.probability:.2f}"
    votes = ", ".join(f"{name} {vote:.2f}" for name, vote in zip(members, prediction.member_probabilities, strict=True))
    shade = colour(prediction.probability)
    return {
        "type": "Fiducial",
        "name": label,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N",
        "controlPoints": [
            {
                "id": "1",
                "label": label,
                "description": "; ".join([votes, *prediction.warnings]),
                "position": [*map(float, prediction.nodule.point)],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        # Slicer draws points that are selected, as all are at first, in their own colour.
        "display": {
            "visibility": True,
            "color": shade,
            "selectedColor": shade,
            "propertiesLabelVisibility": False,
            "pointLabelsVisibility": True,
        },
    }
