"""Adding measurements and clinical risk to predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import NoduleMask
from nodulemc.measure.risk import assess
from nodulemc.measure.sizes import measure
from nodulemc.prediction import NodulePrediction


def measured(
    predictions: Sequence[NodulePrediction],
    volume: Volume,
    masks: Sequence[NoduleMask],
    known: Sequence[Mapping[str, Any]] | None = None,
) -> list[NodulePrediction]:
    """Add ``measurements`` to predictions and, if ``known`` is given, ``risk``.

    Args:
        predictions: The predictions for one CT.
        volume: The CT.
        masks: The nodules' masks, in the predictions' order.
        known: The result of ``nodulemc.measure.clinical.read_clinical``; the sizes are added here.
    """
    sizes = [measure(volume, mask) for mask in masks]
    risks = [None] * len(masks) if known is None else [
        assess({**own, **asdict(found)}) for own, found in zip(known, sizes, strict=True)
    ]  # fmt: skip
    return [
        replace(prediction, measurements=found, risk=risk)
        for prediction, found, risk in zip(predictions, sizes, risks, strict=True)
    ]
