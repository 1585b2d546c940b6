import pytest
import torch
from torch import nn

from nodulemc.models.rounding import round_network, rounded


def test_rounding_keeps_the_types_bits_of_the_significand():
    # 1 + 2**-7 is a bf16 number, 1 + 2**-8 lies between two and goes to the even one.
    numbers = torch.tensor([1 + 2**-7, 1 + 2**-8, -3.14159])
    assert rounded(numbers, torch.bfloat16).tolist() == [1 + 2**-7, 1.0, -3.140625]
    # fp16 has three bits more, ends at 65,504 and has 2**-24 as its smallest number.
    numbers = torch.tensor([1 + 2**-10, 1 + 2**-11, 65519, 65520, 2**-24, 2**-26])
    assert rounded(numbers, torch.float16).tolist() == [1 + 2**-10, 1.0, 65504, torch.inf, 2**-24, 0]


@pytest.mark.parametrize(("dtype", "moved"), [(torch.bfloat16, 1e-3), (torch.float16, 1e-4)])
def test_a_rounded_network_gives_what_the_type_gives(dtype, moved):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.ReLU(), nn.MaxPool3d(2))
    patch = torch.rand(1, 1, 12, 12, 12)
    with torch.no_grad():
        plain = network(patch)
        true = network.to(dtype)(patch.to(dtype)).float()
        simulated = round_network(network.float(), dtype)(rounded(patch, dtype))
    scale = plain.abs().max()
    assert (plain - true).abs().max() / scale > moved
    # Sums of another order may fall on the other side of a rounding limit, here and there.
    assert (simulated - true).abs().mean() / scale < moved / 10
    assert torch.equal(rounded(simulated, dtype), simulated)
