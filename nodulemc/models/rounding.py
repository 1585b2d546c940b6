"""The effect of bf16 and fp16 on a network, imitated by rounding in fp32.

The result is the same on every CPU. A CPU without instructions for bf16 or fp16 would need minutes for one patch in
them.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the nearest numbers of a shorter type, as fp32. Numbers beyond its range become infinite."""
    return value.to(dtype).float()


@torch.no_grad()
def round_network(network: Network, dtype: torch.dtype) -> Network:
    """Let a network hold and pass on only numbers of a shorter type, in place, and return it.

    Sums inside a layer stay fp32, as in hardware.
    """
    for parameter in network.parameters():
        parameter.copy_(rounded(parameter, dtype))
    for module in network.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(lambda _module, _inputs, output: rounded(output, dtype))
    return network
