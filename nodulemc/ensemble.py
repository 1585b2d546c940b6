"""The ensemble: every seed loaded once, nodules in batches, soft voting."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch.nn import functional as F

from nodulemc.calibration_map import apply_calibration
from nodulemc.errors import EnsembleError
from nodulemc.manifest import Manifest, Member, member_bytes, read_manifest
from nodulemc.models.checkpoints import check_names
from nodulemc.models.folding import fold_batch_norm, fold_input_channels
from nodulemc.models.multitask import MultiTaskI3d, create_model
from nodulemc.patch import UPSCALED
from nodulemc.precision import DTYPES, choose_device, choose_precision

logger = logging.getLogger(__name__)

_DECODER_PREFIX = "aux_model."
_BATCH_SIZE = {"cpu": 4, "cuda": 32}


class Ensemble:
    """Seeds that vote softly on patches.

    Attributes:
        manifest: what the ensemble's folder says of it.
        device: where the seeds are.
        precision: "fp32", "bf16" or "fp16".
        caveat: a warning that belongs beside every number of this ensemble, None where there is none.
    """

    def __init__(
        self,
        manifest: Manifest,
        seeds: list[MultiTaskI3d],
        device: torch.device,
        precision: str,
        *,
        calibrated: bool = False,
    ) -> None:
        self.manifest = manifest
        self.device = device
        self.precision = precision
        self.caveat = "the weights are untrained: the numbers mean nothing" if manifest.trained_on is None else None
        self._dtype = DTYPES[precision]
        self._seeds = [seed.to(device, self._dtype, memory_format=torch.channels_last_3d) for seed in seeds]
        weights = np.array([member.weight for member in manifest.members])
        self._weights = weights / weights.sum()
        self._calibration = manifest.calibration if calibrated else None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        masks: bool = False,
        calibrated: bool = False,
    ) -> "Ensemble":
        """Load an ensemble folder.

        Args:
            folder: holds ``ensemble.json`` and the seeds' safetensors files.
            device: "auto", "cpu" or "cuda".
            precision: "auto", "fp32", "bf16" or "fp16".
            masks: also build the decoders, for ``mask_probabilities``.
            calibrated: apply the folder's calibration map to the vote.

        Raises:
            EnsembleError: the folder is incomplete, damaged, or lacks the decoders or the calibration that are wanted.
            ConfigError: the device is not there.
        """
        manifest = read_manifest(folder)
        if calibrated and manifest.calibration is None:
            raise EnsembleError("no calibration is stored", folder, "fit one with `nodulemc calibrate`")
        chosen = choose_device(device)
        seeds = [load_member(folder, member, masks=masks) for member in manifest.members]
        ensemble = cls(manifest, seeds, chosen, choose_precision(precision, chosen, manifest), calibrated=calibrated)
        if ensemble.caveat:
            logger.warning("%s: %s", folder, ensemble.caveat)
        return ensemble

    def seed_probabilities(self, patches: np.ndarray) -> np.ndarray:
        """Each seed's malignancy probability of each patch.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Returns:
            float64 (N, number of seeds).
        """
        return self._run(patches, lambda seed, x: torch.sigmoid(seed(x).double()), ())

    def mask_probabilities(self, patches: np.ndarray) -> np.ndarray:
        """Probability of each voxel to belong to the nodule, the soft vote of all seeds.

        Args:
            patches: float32 (N, 64, 64, 64), axes z, y, x, values 0…1.

        Returns:
            float64 (N, 64, 64, 64), on the patches' grid.
        """
        per_seed = self._run(
            patches, lambda seed, x: torch.sigmoid(seed.forward_multitask(x)[1].double()), patches.shape[1:]
        )
        return np.average(per_seed, axis=1, weights=self._weights)

    def vote(self, per_seed: np.ndarray) -> np.ndarray:
        """Soft voting: the weighted mean of the seeds' probabilities, (N, seeds) to (N,), calibrated if asked."""
        return apply_calibration(per_seed @ self._weights, self._calibration)

    @torch.inference_mode()
    def _run(self, patches: np.ndarray, task: Callable, shape: tuple[int, ...]) -> np.ndarray:
        results = np.empty((len(patches), len(self._seeds), *shape))
        size = _BATCH_SIZE[self.device.type]
        for start in range(0, len(patches), size):
            batch = torch.from_numpy(patches[start : start + size]).unsqueeze(1).to(self.device)
            batch = F.interpolate(batch, size=UPSCALED).to(self._dtype, memory_format=torch.channels_last_3d)
            for column, seed in enumerate(self._seeds):
                results[start : start + size, column] = task(seed, batch).cpu().numpy()
        return results


def load_member(folder: str | Path, member: Member, *, masks: bool = False) -> MultiTaskI3d:
    """Build one seed's network for inference, in fp32 on the CPU: normalisation and input channels folded.

    Raises:
        EnsembleError: the file is missing or damaged, does not fill the architecture exactly, holds NaN or
            infinite values, or lacks the decoder that masks need.
    """
    path = Path(folder) / member.file
    if masks and member.architecture.decoder_widths is None:
        raise EnsembleError("the seed has no decoder, so it cannot segment", path, "use an ensemble saved with one")
    try:
        tensors = safetensors.torch.load(member_bytes(folder, member))
    except safetensors.SafetensorError as error:
        raise EnsembleError(f"not a safetensors file ({error})", path, "copy the whole folder again") from error
    if not masks:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(_DECODER_PREFIX)}
    with torch.device("meta"):
        network = create_model(member.architecture, with_decoder=masks)
    types = {name: value.dtype for name, value in network.state_dict().items()}
    tensors = {name: value.to(types[name]) for name, value in check_names(tensors, network, path).items()}
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise EnsembleError("NaN or infinite weights", path, "the training diverged; use another checkpoint")
    network.load_state_dict(tensors, assign=True)
    network.eval().requires_grad_(False)
    return fold_input_channels(fold_batch_norm(network))
