"""Small blocks in memory and a small network, for tests of the training code."""

import os
import signal

import numpy as np
import torch
from torch import nn

from nodulemc.data.block_store import NoduleBlock
from nodulemc.errors import TableError
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig
from nodulemc.training.trainer import TrainingData


class ToyStore:
    """Blocks of bright (malignant) and faint (benign) spheres; picklable, made on demand."""

    folder = "toys"

    def __init__(self, count: int, table: list[dict] | None = None) -> None:
        self.count = count
        self.table = table

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NoduleBlock:
        random = np.random.default_rng([99, index])
        shape = np.array((24, 30 + index % 3, 28))
        z, y, x = np.indices(shape) - ((shape - 1) / 2)[:, None, None, None]
        mask = (np.sqrt(z**2 + y**2 + x**2) < 5).astype(np.uint8)
        hu = -850 + random.normal(0, 40, shape) + mask.astype(float) * (900 if index % 2 else 300)
        matrix = np.diag([2.0, 2.0, 2.2])
        return NoduleBlock(
            hu.round().astype(np.int16),
            mask,
            origin=np.zeros(3),
            matrix=matrix,
            point=matrix @ ((shape[::-1] - 1) / 2),
            scan_bounds=(np.full(3, -0.5), shape[::-1] - 0.5),
            row={},
        )


class UnreadableStore(ToyStore):
    """Raises at block 0, and block 1 kills whoever reads it."""

    def __getitem__(self, index: int) -> NoduleBlock:
        if index == 0:
            raise TableError("the file holds 7 of 9 bytes", "store: voxels", "copy it again")
        os.kill(os.getpid(), signal.SIGKILL)


def toy_data(count: int = 12, validation: int = 4) -> TrainingData:
    labels = [k % 2 for k in range(count)]
    return TrainingData(ToyStore(count), labels, range(count - validation), range(count - validation, count))


def rated_data() -> TrainingData:
    """Toys with ratings, some of which are missing; every fourth is undecided."""
    data = toy_data()
    ratings = [{"readers": 2.0, "malignancy": 1.5 + 2 * (k % 2), "texture": 1.0 + k % 3} for k in range(12)]
    ratings[3]["texture"] = ratings[4]["malignancy"] = None
    labels = [None if k % 4 == 0 else label for k, label in enumerate(data.labels)]
    return TrainingData(ToyStore(12, ratings), labels, data.train, data.validation)


class ToyMultiTask(nn.Module):
    """Some hundred parameters with everything that matters: two tasks, the large input and, where wanted, BatchNorm."""

    def __init__(self, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, stride=(8, 16, 16), padding=1)
        self.norm = nn.BatchNorm3d(4) if batch_norm else nn.Identity()
        self.head = nn.Linear(4, 1)
        self.aux_model = nn.Conv3d(4, 1, 1)

    def forward_multitask(self, x: torch.Tensor, mask_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.norm(self.conv(x)))
        masks = nn.functional.interpolate(self.aux_model(features), size=(mask_size,) * 3)
        return self.head(features.mean((2, 3, 4))).squeeze(1), masks.squeeze(1)


class RatedToy(ToyMultiTask):
    """One that tells an attribute, too."""

    def __init__(self, *, batch_norm: bool = True) -> None:
        super().__init__(batch_norm=batch_norm)
        self.attribute_head = nn.Linear(4, 1)

    def forward_multitask(self, x: torch.Tensor, mask_size: int) -> tuple[torch.Tensor, ...]:
        features = torch.relu(self.norm(self.conv(x)))
        return *super().forward_multitask(x, mask_size), self.attribute_head(features.mean((2, 3, 4)))


def _toy(config: ModelConfig) -> type[ToyMultiTask]:
    return RatedToy if config.attributes else ToyMultiTask


def create_toy(config: ModelConfig, seed: int) -> PatchNetwork:
    return PatchNetwork(_toy(config)())


def create_toy_without_batch_norm(config: ModelConfig, seed: int) -> PatchNetwork:
    return PatchNetwork(_toy(config)(batch_norm=False))
