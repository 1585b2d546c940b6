"""What bf16 does to a network, by rounding in fp32: the same on every CPU, those without bf16 instructions included.

Such CPUs would need minutes for one patch in bf16 itself.
"""

import torch
from torch import Tensor, nn


def rounded(value: Tensor) -> Tensor:
    """Nearest bf16 numbers, as fp32."""
    return value.bfloat16().float()


@torch.no_grad()
def round_to_bf16(network: nn.Module) -> nn.Module:
    """Let a network hold and pass on bf16 numbers only, in place; sums inside a layer stay fp32, as in hardware."""
    for parameter in network.parameters():
        parameter.copy_(rounded(parameter))
    for module in network.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(lambda _module, _inputs, output: rounded(output))
    return network
