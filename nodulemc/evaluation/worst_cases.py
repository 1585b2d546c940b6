"""The most wrong predictions, with pictures of the nodules if images are available."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nodulemc.arrays import Array
from nodulemc.evaluation.predictions import Predictions
from nodulemc.patch import SIZE

_SHOWN = 6
_PICTURE_PIXELS = 160
_DETAILS = (("Age_at_StudyDate", "{} years"), ("Gender", "{}"), ("diameter_mm", "{} mm"))
# Returns a nodule's patch by its AnnotationID: float32 (64, 64, 64), axes z, y, x, values 0…1; or None.
PatchOf = Callable[[str], Array | None]


@dataclass(frozen=True)
class Case:
    """One nodule on the page.

    Attributes:
        name: The AnnotationID.
        probability: The predicted probability.
        details: Age, sex and diameter, in words, as far as the table has them.
        pictures: The axial, coronal and sagittal picture through the nodule's point, as data URLs. Empty without
            images.
    """

    name: str
    probability: float
    details: str
    pictures: tuple[str, ...]


def most_wrong(predictions: Predictions, label: int, patch_of: PatchOf) -> list[Case]:
    """Return the malignant nodules (label 1) with the lowest probabilities, or the benign ones with the highest."""
    members = np.flatnonzero(predictions.labels == label)
    worst = members[np.argsort(-np.abs(predictions.probabilities[members] - label), kind="stable")][:_SHOWN]
    return [_case(predictions, int(position), patch_of) for position in worst]


def _case(predictions: Predictions, position: int, patch_of: PatchOf) -> Case:
    cells = predictions.columns[position]
    details = [form.format(_rounded(cells[column])) for column, form in _DETAILS if cells.get(column)]
    patch = patch_of(predictions.ids[position])
    return Case(
        name=predictions.ids[position],
        probability=float(predictions.probabilities[position]),
        details=", ".join(details),
        pictures=() if patch is None else tuple(_data_url(plane) for plane in _planes(patch)),
    )


def _planes(patch: Array) -> tuple[Array, Array, Array]:
    """Return the axial (seen from the feet), coronal (from the front) and sagittal plane (from the left), head up."""
    middle = SIZE // 2
    return patch[middle], patch[::-1, middle], patch[::-1, :, middle]


def _data_url(plane: Array) -> str:
    file = io.BytesIO()
    picture = Image.fromarray((plane * 255).round().astype(np.uint8))
    picture.resize((_PICTURE_PIXELS,) * 2, Image.Resampling.BICUBIC).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _rounded(text: str) -> str:
    """Return the text with long decimals shortened to one digit."""
    head, point, decimals = text.partition(".")
    return f"{float(text):.1f}" if point and head.isdigit() and decimals.isdigit() else text
