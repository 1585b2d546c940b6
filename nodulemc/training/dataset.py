"""Samples and batches from a block store. Blocks are read ahead, as stored, together with each sample's transform.

The randomness of a sample depends only on the run's seed, the epoch and the sample's place in it. So a run gives the
same batches with any number of worker processes, and after a restart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nodulemc.arrays import Array
from nodulemc.data.block_store import BlockStore, NoduleBlock
from nodulemc.patch import CENTRE_INDEX, SIZE
from nodulemc.training.augmentation import IDENTITY, draw_augmentation
from nodulemc.training.config import AugmentationConfig
from nodulemc.training.resampling import resample, sampling_affine
from nodulemc.util.worker_pool import SPAWN

# The number of batches that each reading process keeps ready.
PREFETCHED = 4
_CORNERS = np.array([(*corner, 1.0) for corner in product((-CENTRE_INDEX, CENTRE_INDEX), repeat=3)])
# Keep the random streams of epochs' draws and of samples' transforms apart.
_DRAW, _TRANSFORM = 0, 1


@dataclass(frozen=True)
class SampleRef:
    """One place in an epoch: the block to read there, and the numbers from which its transform is drawn."""

    index: int
    epoch: int
    place: int


class Batch(NamedTuple):
    """The blocks of several nodules, each cut to the box that its patch needs.

    The blocks are stored one after the other, and padded to one size only on the device. Padded blocks would be two to
    three times as many bytes to hand over, to pin and to free.

    Attributes:
        voxels: int16 (all blocks' voxels,), HU, z slowest.
        masks: uint8, the same shape.
        sizes: The size (D, H, W) of each block.
        affines: float64 (N, 3, 4), see ``sampling_affine``.
        scan_bounds: float64 (N, 2, 3), see ``resample``.
        labels: float32 (N,), 1 malignant, NaN undecided.
        ratings: float32 (N, A), the readers' mean ratings with their scales mapped to 0…1, NaN if unknown. A is 0 if no
            ratings are asked for.
        indices: int64 (N,), the blocks' numbers in the store.
    """

    voxels: Tensor
    masks: Tensor
    sizes: tuple[tuple[int, int, int], ...]
    affines: Tensor
    scan_bounds: Tensor
    labels: Tensor
    ratings: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, asynchronously if the memory is pinned."""
        tensors = ((name, x) for name, x in self._asdict().items() if isinstance(x, Tensor))
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors}
        return self._replace(**moved)

    def resample(self, size: int = SIZE) -> tuple[Tensor, Tensor]:
        """Return images (N, 1, S, S, S) and masks (N, S, S, S); see ``nodulemc.training.resampling.resample``."""
        voxels, masks = _pad(self.voxels, self.sizes), _pad(self.masks, self.sizes)
        return resample(
            voxels, masks, self.affines, torch.tensor(self.sizes, device=voxels.device), self.scan_bounds, size
        )


def _pad(values: Tensor, sizes: Sequence[tuple[int, int, int]]) -> Tensor:
    """Return blocks stored one after the other as (N, D, H, W), padded with zeros at the far ends to the largest."""
    padded = values.new_zeros((len(sizes), *map(max, zip(*sizes, strict=True))))
    for block, part, (d, h, w) in zip(padded, values.split([*map(prod, sizes)]), sizes, strict=True):
        block[:d, :h, :w] = part.view(d, h, w)
    return padded


class NoduleDataset(Dataset[Batch]):
    """The blocks of a store, each cut to the box that its patch needs."""

    def __init__(
        self,
        store: BlockStore,
        labels: Sequence[float] | Array,
        augmentation: AugmentationConfig | None,
        seed: int,
        ratings: Array | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            store: The blocks.
            labels: The label of every block, in the store's order, NaN if undecided.
            augmentation: The transforms of samples. None leaves samples as inference sees them.
            seed: The run's seed.
            ratings: float32 (blocks, A), see ``Batch``. None for no ratings.
        """
        self._store = store
        self._labels = labels
        self._ratings = np.empty((len(labels), 0), np.float32) if ratings is None else ratings
        self._augmentation = augmentation
        self._seed = seed

    def __getitem__(self, draw: SampleRef) -> Batch:
        """Return one sample as a batch of one."""
        block = self._store[draw.index]
        transform = IDENTITY
        if self._augmentation is not None:
            random = np.random.default_rng([self._seed, _TRANSFORM, draw.epoch, draw.place])
            transform = draw_augmentation(self._augmentation, random)
        label, ratings = self._labels[draw.index], self._ratings[draw.index]
        return cut_sample(block, sampling_affine(block, transform), label, draw.index, ratings)


def cut_sample(block: NoduleBlock, affine: Array, label: float, index: int, ratings: Sequence[float] = ()) -> Batch:
    """Return the part of a block whose voxels the patch's sampling needs."""
    if block.mask is None:
        raise ValueError(f"block {index} has no mask")
    corners = _CORNERS @ affine.T
    size = np.array(block.voxels.shape)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low + 1, size)
    box = tuple(map(slice, low, high))
    affine = affine - np.column_stack([np.zeros((3, 3)), low])
    scan_bounds = np.array([side[::-1] for side in block.scan_bounds]) - low
    return Batch(
        torch.from_numpy(block.voxels[box].flatten()),
        torch.from_numpy(block.mask[box].flatten()),
        (tuple((high - low).tolist()),),
        torch.from_numpy(affine).unsqueeze(0),
        torch.from_numpy(scan_bounds).unsqueeze(0),
        torch.tensor([label], dtype=torch.float32),
        torch.tensor(np.array([ratings]), dtype=torch.float32),
        torch.tensor([index]),
    )


def collate(samples: Sequence[Batch]) -> Batch:
    """Join samples to one batch."""
    columns = zip(*samples, strict=True)
    joined: list[Any] = [torch.cat(x) if isinstance(x[0], Tensor) else sum(x, ()) for x in columns]
    return Batch(*joined)


class BalancedBatchSampler(Sampler[list[SampleRef]]):
    """Draws batches with replacement, malignant and benign samples equally often.

    Each process gets its share of each batch. Undecided samples have the same share of the draws as of the samples.

    Source: MClab's public code (train_amp.py), which draws as many samples per epoch as the training set has. Here the
    last batch is full, too.
    """

    def __init__(
        self,
        indices: Sequence[int],
        labels: Sequence[int | None],
        *,
        batch_size: int,
        samples: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Describe the epochs.

        Args:
            indices: The training blocks' numbers in the store.
            labels: The blocks' labels, in the same order, None if undecided.
            batch_size: The number of samples per step over all processes, a multiple of ``processes``.
            samples: The number of draws per epoch, rounded up to whole batches.
            seed: The run's seed.
            process: The number of this process.
            processes: The number of processes.
        """
        self.epoch = 0
        self._indices = np.asarray(indices)
        numbers = np.array(labels, float)  # NaN for None
        malignant, benign = numbers == 1, numbers == 0
        counts = [max(known.sum(), 1) for known in (malignant, benign)]
        weights = np.select([malignant, benign], [1 / count for count in counts], 2 / sum(counts))
        self._probabilities = weights / weights.sum()
        self._batch_size = batch_size
        self._batches = -(-samples // batch_size)
        self._seed = seed
        share = batch_size // processes
        self._share = slice(process * share, (process + 1) * share)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[SampleRef]]:
        random = np.random.default_rng([self._seed, _DRAW, self.epoch])
        for batch in range(self._batches):
            chosen = random.choice(self._indices, self._batch_size, p=self._probabilities)
            places = range(batch * self._batch_size, (batch + 1) * self._batch_size)
            draws = [SampleRef(index, self.epoch, place) for index, place in zip(chosen.tolist(), places, strict=True)]
            yield draws[self._share]


class SequentialBatchSampler(Sampler[list[SampleRef]]):
    """Gives every block once, in order; each process gets every n-th block."""

    def __init__(self, indices: Sequence[int], *, batch_size: int, process: int = 0, processes: int = 1) -> None:
        own = [SampleRef(index, 0, place) for place, index in enumerate(indices)][process::processes]
        self._batches = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        return iter(self._batches)


def make_loader(
    dataset: NoduleDataset, batches: Iterable[list[SampleRef]], *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """Return a loader whose workers keep reading ahead of the network, and stay alive between epochs."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED if workers else None,
        # A fork of a process that has run OpenMP or CUDA can hang.
        multiprocessing_context=SPAWN if workers else None,
    )
