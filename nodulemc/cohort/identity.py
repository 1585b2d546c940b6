"""The ensemble that a result comes from."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from nodulemc.ensemble.manifest import EnsembleManifest

# Raise this number if the same CT, points and weights give other probabilities or measurements.
# 2: HU of DICOM and NIfTI as pydicom's and nibabel's; geometries that contradict each other are refused.
_METHOD = 2


@dataclass(frozen=True)
class Identity:
    """An ensemble, as it is stored with results.

    Attributes:
        weights: A hash of the members' SHA-256s, weights and architectures, and of the calibration if it is applied.
        precision: "fp32", "bf16" or "fp16".
        seeds: The members' names, in voting order.
        trained_on: As in the ensemble's manifest.
        vote_weights: The members' shares of the vote.
        calibration: The map that is applied. None if there is none.
        sha256: The SHA-256 of its ``ensemble.json``. None in results of older versions.
        attributes: The ratings that it predicts, in its manifest's order.
        measures: Whether nodules are measured, too.
    """

    weights: str
    precision: str
    seeds: tuple[str, ...]
    trained_on: str | None
    vote_weights: tuple[float, ...] = ()
    calibration: dict[str, Any] | None = None
    sha256: str | None = None
    attributes: tuple[str, ...] = ()
    measures: bool = False

    @classmethod
    def of(cls, manifest: EnsembleManifest, precision: str, *, calibrated: bool, measures: bool = False) -> "Identity":
        """Return the identity of an ensemble folder's content."""
        # Only an input of a member's own is listed, so that results from before there were such inputs remain valid.
        members = [
            [m.sha256, m.weight, m.architecture.to_json(), *([] if m.upscales else ["as it is"])]
            for m in manifest.members
        ]
        calibration = manifest.calibration if calibrated else None
        content = [_METHOD, members, calibration]
        weights = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        shares = tuple(manifest.vote_weights.tolist())
        names = tuple(manifest.member_names)
        told = manifest.sha256, manifest.attributes
        return cls(weights, precision, names, manifest.trained_on, shares, calibration, *told, measures)
