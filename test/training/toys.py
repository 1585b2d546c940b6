"""Small data and a small network, for tests of the training code."""

import torch
from torch import nn
from training.toy_store import ToyStore

from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig
from nodulemc.training.trainer import TrainingData


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
