"""What bf16 and fp16 do to a network, by rounding in fp32: the same on every CPU, those without their instructions too.

Such CPUs would need minutes for one patch in bf16 or fp16 itself.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest numbers of a shorter type, as fp32; infinite where they are beyond its range."""
    return value.to(dtype).float()


@torch.no_grad()
def round_network(network: Network, dtype: torch.dtype) -> Network:
    """Let a network hold and pass on numbers of a shorter type only, in place; returns the network.

    Sums inside a layer stay fp32, as in hardware.
    """
    for parameter in network.parameters():
        parameter.copy_(rounded(parameter, dtype))
    for module in network.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(lambda _module, _inputs, output: rounded(output, dtype))
    return network
