"""Exponential moving average of a network: what is validated and shipped."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class ExponentialMovingAverage(Generic[Network]):
    """A second network that follows the trained one, its buffers (BatchNorm's statistics) included.

    The decay grows as min(decay, (1 + n) / (10 + n)) with the number n of updates, so that short runs forget
    their random start. Source: slides (0.998 per step) and the package ``torch_ema`` that MClab's public code uses
    with this growth.

    Attributes:
        network: the averaged network, in eval mode, without gradients.
        decay: the largest decay per update.
        updates: how many there have been.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move the average towards ``network``; integer buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        floats = [(mine, its) for mine, its in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [its for _, its in floats], 1 - decay)
        for mine, its in pairs:
            if not mine.is_floating_point():
                mine.copy_(its)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
