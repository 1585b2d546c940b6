from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nodulemc.models.architecture import Architecture
from nodulemc.models.backbone import same
from nodulemc.models.layers import ConvBnRelu
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork, UpscaledStem, absorb_upscaling


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_model(Architecture("inception_i3d", (), (8, 8, 8, 8, 8)), with_decoder=True)


def test_the_stem_on_patches_is_the_stem_on_upscaled_patches():
    torch.manual_seed(1)
    unit = ConvBnRelu(3, 6, same(7, 2)).double()
    patches = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64)
    weights = torch.randn(2, 6, 8, 16, 16, dtype=torch.float64)
    results = []
    for module, inputs in [(unit, F.interpolate(patches, scale_factor=(1, 2, 2))), (UpscaledStem(unit), patches)]:
        output = module(inputs.expand(-1, 3, -1, -1, -1))
        (output * weights).sum().backward()
        results.append((output.detach(), unit.conv3d.weight.grad, unit.batch3d.weight.grad))
        unit.zero_grad(set_to_none=True)
    for large, small in zip(*results, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-9)


@pytest.mark.heavy
def test_the_network_keeps_its_tensors_names_and_function(network):
    absorbed = deepcopy(network)
    absorb_upscaling(absorbed)
    assert isinstance(absorbed.backbone.conv3d_1a_7x7, UpscaledStem)
    assert absorbed.state_dict().keys() == network.state_dict().keys()
    patches = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        plain, fast = (PatchNetwork(deepcopy(n)).eval()(patches) for n in (network, absorbed))
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-3, atol=1e-3)
    assert plain[1].shape == (1, 32, 32, 32)
