"""Members in PyTorch: on a GPU, and on the CPU if OpenVINO is not installed."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodulemc.arrays import Array
from nodulemc.ensemble.backends.ways import EAGER, CudaGraphs, Way, choose_way
from nodulemc.ensemble.manifest import Member
from nodulemc.ensemble.weights import read_weights
from nodulemc.errors import out_of_memory
from nodulemc.hardware import available_cores
from nodulemc.models.channels_last import move_channels_last
from nodulemc.models.checkpoints import fill
from nodulemc.models.folding import fold_batch_norm, fold_input_channels
from nodulemc.models.fused import fuse
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork, absorb_upscaling

logger = logging.getLogger(__name__)

Task = Callable[[PatchNetwork, Tensor], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH_SIZE = {"cpu": 4, "cuda": 32}


class TorchMembers:
    """The members on one device.

    A batch that does not fit the GPU's memory is halved, and stays so. If not even one nodule fits, or the members
    themselves do not, the members move to the CPU, with a warning.

    Attributes:
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" or "fp16".
        batch_size: The largest number of nodules that run at once.
    """

    def __init__(
        self, networks: Sequence[PatchNetwork], device: str, precision: str, *, way: Way | None = None
    ) -> None:
        """Move the members to their device.

        Args:
            networks: Networks from ``load_network``.
            device: "cpu" or "cuda".
            precision: The precision of weights and activations.
            way: The way to run them on a GPU. None for the one that ``nodulemc.ensemble.backends.ways`` chooses.
        """
        self._networks = list(networks)
        self._way = way
        self._nodules = 0
        self._graphs = CudaGraphs()
        self._fused = False
        self._following: Array = np.empty(0)
        self._ahead: Tensor | None = None
        if not self._fits(self._move, device, precision):
            self._leave_gpu()

    def member_probabilities(self, patches: Array) -> Array:
        """Return each member's malignancy probabilities: from (N, 64, 64, 64) to float64 (N, number of members)."""
        return self._run(patches, _malignancy, ())

    def member_findings(self, patches: Array, attributes: tuple[str, ...]) -> Array:
        """Return each member's malignancy probability and attributes of each patch, from one pass.

        Args:
            patches: (N, 64, 64, 64).
            attributes: The names of the attributes.

        Returns:
            float64 (N, number of members, 1 + number of attributes), 0…1. Attributes that a member does not predict are
                NaN.
        """
        return self._run(patches, _Findings(attributes), (1 + len(attributes),))

    def member_findings_and_masks(self, patches: Array, attributes: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the results of ``member_findings`` and ``mask_probabilities``, from one pass."""
        findings, size = 1 + len(attributes), patches.shape[1:]
        found = self._run(patches, _Findings(attributes, masks=True), (findings + prod(size),))
        segmenting = [k for k, network in enumerate(self._networks) if network.segments]
        masks = found[:, segmenting, findings:].reshape(len(patches), len(segmenting), *size)
        return found[:, :, :findings], masks

    def mask_probabilities(self, patches: Array) -> Array:
        """Return each voxel's probability to belong to the nodule, from each member that has a decoder.

        Args:
            patches: (N, 64, 64, 64).

        Returns:
            float64 (N, number of these members, 64, 64, 64).
        """
        return self.member_findings_and_masks(patches, ())[1]

    def _move(self, device: str, precision: str) -> None:
        if device == "cpu" and torch.get_num_threads() > available_cores():
            torch.set_num_threads(available_cores())
        self.device = device
        self.precision = precision
        self._dtype = DTYPES[precision]
        for network in self._networks:
            move_channels_last(network, device, self._dtype)
        self.batch_size = _BATCH_SIZE[device]

    def _run(self, patches: Array, task: Task, shape: tuple[int, ...]) -> Array:
        self._nodules += len(patches)
        results = np.empty((len(patches), len(self._networks), *shape))
        start, self._ahead = 0, None
        while start < len(patches):
            batch = self._next_batch(start, len(patches))
            self._following = patches[self._next_batch(batch.stop, len(patches))]
            if self._fits(self._run_batch, patches[batch], task, results[batch]):
                start = batch.stop
            else:
                self._retreat()
        return results

    def _next_batch(self, start: int, end: int) -> slice:
        size = min(end - start, self.batch_size)
        # A graph is for one size. With powers of two, few sizes are enough for any number of nodules.
        return slice(start, start + (1 << size.bit_length() >> 1 if self._chosen_way().graphs else size))

    def _chosen_way(self) -> Way:
        if self.device == "cpu":
            return EAGER
        return self._way or choose_way(self.device, torch.cuda.get_device_capability(), self._nodules)

    def _fits(self, work: Callable[..., None], *arguments: object) -> bool:
        """Do some work. Return whether the GPU's memory was enough.

        The exception for too little memory holds the work's tensors. They are free only after this has returned.
        """
        try:
            work(*arguments)
        except RuntimeError as error:
            # The CUDA libraries report a lack of memory only in words.
            if not isinstance(error, torch.OutOfMemoryError) and (self.device == "cpu" or not out_of_memory(error)):
                raise
            return False
        return True

    @torch.inference_mode()
    def _run_batch(self, patches: Array, task: Task, results: Array) -> None:
        batch, self._ahead = self._ahead, None
        if batch is None or len(batch) != len(patches):
            batch = self._sent(patches)
        way = self._chosen_way()
        self._fuse(way.fused)
        # PyTorch's default for convolutions is TF32, which is less exact than fp32.
        with torch.backends.cudnn.flags(enabled=True, benchmark=way.cudnn_benchmark, allow_tf32=way.tf32):
            if way.graphs:
                outputs = self._graphs.run(task, lambda inputs: self._run_networks(inputs, task), batch)
            else:
                outputs = self._run_networks(batch, task)
        # The CPU prepares the next batch while a GPU works on this one.
        if self.device == "cuda" and len(self._following):
            self._ahead = self._sent(self._following)
        # One copy back for all members, as each copy waits for the GPU.
        results[:] = outputs.cpu().numpy()

    def _sent(self, patches: Array) -> Tensor:
        """Return patches on the device, (N, 1, 64, 64, 64), or on their way to it."""
        batch = torch.from_numpy(patches).unsqueeze(1)
        if self.device == "cuda":
            # The numbers are shortened on the way into pinned memory, so that half as much is copied to the GPU.
            pinned = torch.empty(batch.shape, dtype=self._dtype, pin_memory=True)
            batch = pinned.copy_(batch).to(self.device, non_blocking=True)
        return batch.to(self._dtype)

    def _fuse(self, fused: bool) -> None:
        if fused != self._fused:
            self._fused = fused
            for network in self._networks:
                fuse(network, fused)

    def _run_networks(self, batch: Tensor, task: Task) -> Tensor:
        return torch.stack([task(network, batch) for network in self._networks], dim=1)

    def _retreat(self) -> None:
        self._ahead = None
        self._graphs.clear()
        torch.cuda.empty_cache()
        if self.batch_size > 1:
            self.batch_size //= 2
        else:
            self._leave_gpu()

    def _leave_gpu(self) -> None:
        logger.warning("the GPU's memory is too small for one nodule: running on the CPU")
        # First move them with their type, because a change of type on the way would need the GPU's memory.
        for network in self._networks:
            network.to("cpu")
        self._move("cpu", "fp32")
        torch.cuda.empty_cache()


def _malignancy(network: PatchNetwork, batch: Tensor) -> Tensor:
    return torch.sigmoid(network.classify(batch).double())


@dataclass(frozen=True)
class _Findings:
    """The task of malignancy, attributes and, if wanted, a mask's voxels, each in a column.

    Columns that a network does not predict are NaN. Equal tasks share a CUDA graph.
    """

    attributes: tuple[str, ...]
    masks: bool = False

    def __call__(self, network: PatchNetwork, batch: Tensor) -> Tensor:
        segments = self.masks and network.segments
        logits, told, *mask = (network.find_all if segments else network.classify_with_attributes)(batch)
        unknown = torch.full_like(logits, torch.nan)
        columns = torch.stack([logits, *(told.get(name, unknown) for name in self.attributes)], dim=1)
        found = torch.sigmoid(columns.double())
        if not self.masks:
            return found
        voxels = mask[0].flatten(1) if mask else torch.full_like(batch.flatten(1), torch.nan)
        # By itself: the last bit of a sigmoid depends on the number's place in its tensor.
        return torch.cat([found, torch.sigmoid(voxels.double())], dim=1)


def load_members(
    folder: str | Path, members: Sequence[Member], device: str, precision: str, *, masks: bool = False
) -> TorchMembers:
    """Load an ensemble's members. Their files are read in parallel, while the GPU starts.

    For masks, the members that have a decoder get it.

    Raises:
        EnsembleError: as ``nodulemc.ensemble.weights.read_weights``.
    """
    with ThreadPoolExecutor(min(available_cores(), len(members)) + 1) as pool:
        if device == "cuda":
            # A failure here repeats later, at the place that handles it.
            pool.submit(start_gpu, DTYPES[precision])
        decoders = [masks and member.segments for member in members]
        read = pool.map(lambda member, decoder: read_weights(folder, member, masks=decoder), members, decoders)
        # Building sets PyTorch's default device, which all threads share.
        networks = [_build(*given) for given in zip(members, read, decoders, strict=True)]
    return TorchMembers(networks, device, precision)


def start_gpu(dtype: torch.dtype) -> None:
    """Load the driver, cuDNN and its kernels. Otherwise the first pass would wait for them."""
    blank = torch.zeros((16, 16, 3, 3, 3), dtype=dtype, device="cuda").to(memory_format=torch.channels_last_3d)
    torch.nn.functional.conv3d(blank, blank)
    torch.cuda.synchronize()


def load_network(folder: str | Path, member: Member, *, masks: bool = False) -> PatchNetwork:
    """Build one member's network for inference, in fp32 on the CPU, with normalisation, channels and upscaling folded.

    Raises:
        EnsembleError: as ``nodulemc.ensemble.weights.read_weights``.
    """
    return _build(member, read_weights(folder, member, masks=masks), masks)


def _build(member: Member, tensors: dict[str, Array], masks: bool) -> PatchNetwork:
    with torch.device("meta"):
        network = create_model(member.architecture, with_decoder=masks)
    fill(network, {name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()})
    network.eval().requires_grad_(False)
    fold_input_channels(fold_batch_norm(network))
    if member.upscales:
        absorb_upscaling(network)
    return PatchNetwork(network, upscaled=member.upscales)
