import torch
from torch import nn

from nodulemc.models.rounding import round_to_bf16, rounded


def test_rounding_keeps_eight_bits_of_the_significand():
    # 1 + 2**-7 is a bf16 number, 1 + 2**-8 lies between two and goes to the even one.
    assert rounded(torch.tensor([1 + 2**-7, 1 + 2**-8, -3.14159])).tolist() == [1 + 2**-7, 1.0, -3.140625]


def test_a_rounded_network_gives_what_bf16_gives():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.ReLU(), nn.MaxPool3d(2))
    patch = torch.rand(1, 1, 12, 12, 12)
    with torch.no_grad():
        plain = network(patch)
        true = network.bfloat16()(patch.bfloat16()).float()
        simulated = round_to_bf16(network.float())(rounded(patch))
    scale = plain.abs().max()
    assert (plain - true).abs().max() / scale > 1e-3
    # Sums of another order may fall on the other side of a rounding limit, here and there.
    assert (simulated - true).abs().mean() / scale < 1e-4
    assert torch.equal(rounded(simulated), simulated)
