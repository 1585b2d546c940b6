"""The ensemble loads each of its members once, on the fastest backend there is, and lets them vote softly.

A soft vote is the weighted mean of the members' probabilities. This module imports PyTorch only if it runs on it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nodulemc.ensemble.calibration import apply_calibration
from nodulemc.ensemble.manifest import EnsembleManifest, find_resources, read_manifest
from nodulemc.ensemble.precision import choose_device, choose_precision
from nodulemc.ensemble.trained_cases import TrainedCases, read_trained_cases
from nodulemc.errors import EnsembleError
from nodulemc.ratings import readers_scale

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ensemble.backends.openvino_backend import OpenVinoMembers
    from nodulemc.ensemble.backends.torch_backend import TorchMembers

logger = logging.getLogger(__name__)


class Ensemble:
    """Networks ("members") that vote softly: the probability is the weighted mean of theirs.

    Load one with ``Ensemble.load`` and hand it to ``nodulemc.predict``.

    Attributes:
        manifest: The contents of the ensemble folder's ``ensemble.json``.
        caveat: A warning that belongs beside every number of this ensemble. None if there is none.
        trained_cases: The cases it was trained on. None if they are not known.

    Examples:
        >>> import numpy as np
        >>> from nodulemc import Ensemble
        >>> ensemble = Ensemble.load(device="cpu")
        >>> ensemble.device
        'cpu'
        >>> members = ensemble.member_probabilities(np.zeros((1, 64, 64, 64), np.float32))  # a patch of air
        >>> members.shape, ensemble.vote(members).shape
        ((1, 3), (1,))
    """

    def __init__(
        self,
        manifest: EnsembleManifest,
        backend: OpenVinoMembers | TorchMembers,
        *,
        masks: bool = False,
        calibrated: bool = False,
        trained_cases: TrainedCases | None = None,
    ) -> None:
        self.manifest = manifest
        self.trained_cases = trained_cases
        self.caveat = "the weights are untrained: the numbers mean nothing" if manifest.trained_on is None else None
        self._backend = backend
        self._weights = manifest.vote_weights
        self._calibration = manifest.calibration if calibrated else None
        self._masks = masks

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        masks: bool = False,
        calibrated: bool = False,
    ) -> Ensemble:
        """Load an ensemble folder. On a CPU it runs in OpenVINO if that is installed, else in PyTorch.

        Args:
            folder: The folder with ``ensemble.json`` and the members' safetensors files. None stands for the commands'
                default (see ``nodulemc.ensemble.manifest.find_resources``).
            device: "auto", "cpu" or "cuda".
            precision: "auto", "fp32", "bf16" or "fp16".
            masks: Also build the decoders, for ``findings_and_masks`` and ``mask_probabilities``. Members that have
                one may then run it in each pass.
            calibrated: Apply the folder's calibration map to the vote.

        Raises:
            FileError: A file cannot be read.
            EnsembleError: The folder is incomplete or damaged, or lacks the decoders or the calibration asked for.
            ConfigError: The device is not there.
        """
        folder = find_resources() if folder is None else folder
        manifest = read_manifest(folder)
        if calibrated and manifest.calibration is None:
            raise EnsembleError("no calibration is stored", folder, "fit one with `nodulemc calibrate`")
        if masks and not manifest.segments:
            raise EnsembleError(
                "no member has a decoder, so it cannot segment", folder, "use an ensemble saved with one"
            )
        cases = read_trained_cases(manifest)
        chosen = choose_device(device)
        backend = _load_members(manifest, chosen, choose_precision(precision, chosen, manifest), masks)
        ensemble = cls(manifest, backend, masks=masks, calibrated=calibrated, trained_cases=cases)
        if ensemble.caveat:
            logger.warning("%s: %s", folder, ensemble.caveat)
        return ensemble

    @property
    def device(self) -> str:
        """The device that the members run on: "cpu" or "cuda"."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """The number format that the members compute in: "fp32", "bf16" or "fp16"."""
        return self._backend.precision

    def member_probabilities(self, patches: Array) -> Array:
        """Predict each member's probability of malignancy for each patch.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Returns:
            float64 (N, number of members), 0…1.

        Raises:
            EnsembleError: A member's numbers overflow.
        """
        return self._finite(self._backend.member_probabilities(patches), self.manifest.member_names)

    def findings(self, patches: Array) -> tuple[Array, Array]:
        """Predict each member's probability of malignancy for each patch, and the nodules' attributes, in one pass.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Returns:
            The probabilities, float64 (N, number of members), 0…1; and the attributes, float64 (N, number of
            attributes): the mean rating that radiologists would give, on their scale, in the order of
            ``manifest.attributes``. An attribute is the weighted mean of the members that predict it.

        Raises:
            EnsembleError: A member's numbers overflow.
        """
        if not self.manifest.attributes:
            return self.member_probabilities(patches), np.empty((len(patches), 0))
        return self._told(self._backend.member_findings(patches, self.manifest.attributes))

    def findings_and_masks(self, patches: Array) -> tuple[Array, Array, Array]:
        """Return what ``findings`` and ``mask_probabilities`` return, in one pass.

        The masks of all members are in memory at once: 2 MB for each nodule and member.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Raises:
            EnsembleError: The ensemble was loaded without its decoders, or a member's numbers overflow.
        """
        self._require_decoders()
        found, masks = self._backend.member_findings_and_masks(patches, self.manifest.attributes)
        return *self._told(found), self._mask(masks)

    def _told(self, found: Array) -> tuple[Array, Array]:
        """Turn the members' outputs (N, members, 1 + attributes) into the results of ``findings``."""
        # As member_probabilities gives them: sums over other strides are rounded differently.
        by_member = np.ascontiguousarray(self._finite(found[:, :, 0], self.manifest.member_names))
        attributes = np.empty((len(found), len(self.manifest.attributes)))
        for k, name in enumerate(self.manifest.attributes):
            attributes[:, k] = self._attribute(name, found[:, :, 1 + k])
        return by_member, attributes

    def _attribute(self, name: str, found: Array) -> Array:
        """Vote on one attribute: the members' values 0…1 (N, members) to the readers' scale (N,)."""
        telling = [k for k, member in enumerate(self.manifest.members) if name in member.architecture.attributes]
        by_member = self._finite(found[:, telling], [self.manifest.member_names[k] for k in telling])
        vote: Array = readers_scale(name, np.average(by_member, axis=1, weights=self._weights[telling]))
        return vote

    def mask_probabilities(self, patches: Array) -> Array:
        """Predict for each voxel how likely it belongs to the nodule: the soft vote of the members with a decoder.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Returns:
            float64 (N, 64, 64, 64), 0…1, on the patches' grid.

        Raises:
            EnsembleError: The ensemble was loaded without its decoders, or a member's numbers overflow.
        """
        self._require_decoders()
        return self._mask(self._backend.mask_probabilities(patches))

    def _require_decoders(self) -> None:
        if not self._masks:
            raise EnsembleError(
                "the ensemble was loaded without decoders, so it cannot segment",
                self.manifest.folder,
                "load it with Ensemble.load(folder, masks=True)",
            )

    def _mask(self, by_member: Array) -> Array:
        """Vote on masks: (N, members with a decoder, …) to (N, …)."""
        decoding = [k for k, member in enumerate(self.manifest.members) if member.segments]
        by_member = self._finite(by_member, [self.manifest.member_names[k] for k in decoding])
        vote: Array = np.average(by_member, axis=1, weights=self._weights[decoding])
        return vote

    def vote(self, by_member: Array) -> Array:
        """Vote softly: the weighted mean of the members' probabilities, (N, members) to (N,), calibrated if asked."""
        return apply_calibration(by_member @ self._weights, self._calibration)

    def _finite(self, by_member: Array, names: Sequence[str]) -> Array:
        """Return probabilities (N, members, …) unchanged, if all are finite."""
        if not np.isfinite(by_member).all():
            wrong = [name for k, name in enumerate(names) if not np.isfinite(by_member[:, k]).all()]
            remedy = "use other weights" if self.precision == "fp32" else "use --precision fp32"
            raise EnsembleError(f"the network overflows in {self.precision}", ", ".join(wrong), remedy)
        return by_member


def _load_members(
    manifest: EnsembleManifest, device: str, precision: str, masks: bool
) -> OpenVinoMembers | TorchMembers:
    folder, members = manifest.location, manifest.members
    if device == "cpu" and importlib.util.find_spec("openvino"):
        from nodulemc.ensemble.backends.openvino_backend import OpenVinoMembers

        return OpenVinoMembers(folder, members, precision, masks=masks)
    from nodulemc.ensemble.backends.torch_backend import load_members

    return load_members(folder, members, device, precision, masks=masks)
