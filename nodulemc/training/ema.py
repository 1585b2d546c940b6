"""The exponential moving average of a network, which is validated and shipped in its place."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class ExponentialMovingAverage(Generic[Network]):
    """A second network that follows the trained one, including its buffers (BatchNorm's statistics).

    The decay grows as min(decay, (1 + n) / (10 + n)) with the number n of updates, so that short runs forget their
    random start. Source: the slides (0.998 per step), and the package ``torch_ema`` with this growth, which MClab's
    public code uses.

    Attributes:
        network: The averaged network, in eval mode, without gradients.
        decay: The largest decay per update.
        updates: The number of updates so far.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move the average towards ``network``. Integer buffers are copied."""
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
