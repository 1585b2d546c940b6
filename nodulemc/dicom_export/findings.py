"""Nodules and the algorithm that found them, as SEG and SR both name them."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pydicom.uid import generate_uid

from nodulemc import __version__
from nodulemc.ensemble.calibration import describe_calibration
from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.errors import printable
from nodulemc.measure.mask import NoduleMask
from nodulemc.prediction import NodulePrediction

NAME = "NoduleMC"
VERSION = __version__


@dataclass(frozen=True)
class Segment:
    """A nodule's segment in the SEG: its number from 1, and its mask, which is not empty."""

    number: int
    mask: NoduleMask


@dataclass(frozen=True)
class Finding:
    """A nodule.

    Attributes:
        name: Its name, or its position from 1.
        tracking_uid: A UID that is the same for the same name and point in the same series, in all runs.
        prediction: Its prediction.
        segment: Its segment. None if it has no mask or an empty one.
    """

    name: str
    tracking_uid: str
    prediction: NodulePrediction
    segment: Segment | None


@dataclass(frozen=True)
class Algorithm:
    """The algorithm that made the results.

    Attributes:
        parameters: The ensemble, its training data and the calibration.
        sha256: The ensemble's SHA-256.
    """

    parameters: dict[str, str]
    sha256: str

    @property
    def uid(self) -> str:
        """A UID for this version with this ensemble."""
        return _uid(f"{NAME}/{VERSION}/{self.sha256}")

    def new_instance(self) -> dict[str, Any]:
        """Return the values for highdicom about a new instance in a new series, and about its maker."""
        return {
            "series_instance_uid": generate_uid(),
            "sop_instance_uid": generate_uid(),
            "instance_number": 1,
            "manufacturer": NAME,
            "manufacturer_model_name": NAME,
            "software_versions": VERSION,
            "device_serial_number": self.sha256,
        }


def algorithm_of(manifest: EnsembleManifest, *, calibrated: bool) -> Algorithm:
    """Describe the program with an ensemble; ``calibrated`` tells whether its calibration was applied."""
    sha256 = manifest.identity["sha256"]
    parameters = {
        "ensemble SHA-256": sha256,
        "weights trained on": printable(manifest.trained_on or "nothing (untrained)"),
        "calibration": describe_calibration(manifest.calibration_map) if calibrated else "none",
    }
    return Algorithm(parameters, sha256)


def findings_of(predictions: Sequence[NodulePrediction], masks: Sequence[NoduleMask], series_uid: str) -> list[Finding]:
    """Return a CT's nodules, in their order.

    Args:
        predictions: The predictions for the CT.
        masks: The masks in the same order. Empty if the ensemble makes none.
        series_uid: The CT's SeriesInstanceUID.
    """
    numbers = count(1)
    findings = []
    for k, prediction in enumerate(predictions):
        segment = Segment(next(numbers), masks[k]) if masks and masks[k].voxels.any() else None
        name = printable(prediction.nodule.name or str(k + 1))
        tracking_uid = _uid("/".join([series_uid, name, *map(repr, prediction.nodule.point)]))
        findings.append(Finding(name, tracking_uid, prediction, segment))
    return findings


def _uid(text: str) -> str:
    """Return a UID that is always the same for the same text (derived from a UUID, PS3.5 B.2)."""
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=5).int}"
