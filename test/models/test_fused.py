import pytest
import torch
from torch.nn import functional as F

from nodulemc.models.architecture import Architecture
from nodulemc.models.backbone import same
from nodulemc.models.folding import fold_batch_norm
from nodulemc.models.fused import Fusible, convolution_relu, fuse
from nodulemc.models.layers import ConvBnRelu
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork, absorb_upscaling


def cudnn(x, weight, bias, stride, padding, dilation, groups):
    """What cuDNN's kernel is to give."""
    assert (dilation, groups) == ((1, 1, 1), 1)
    assert all(type(values) is tuple and len(values) == 3 for values in (stride, padding))
    return F.conv3d(x, weight, bias, stride, padding).relu()


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = create_model(Architecture("inception_i3d"), with_decoder=False).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    fold_batch_norm(network)
    absorb_upscaling(network)
    return PatchNetwork(network).to(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pointwise_convolution_is_a_matrix_product(n, dtype):
    generator = torch.Generator().manual_seed(n)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((n, 16, 3, 4, 5), (24, 16, 1, 1, 1), (24,)))
    x = x.contiguous(memory_format=torch.channels_last_3d)
    found = convolution_relu(x.to(dtype), weight.to(dtype), bias.to(dtype), (1, 1, 1), (0, 0, 0))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    expected = F.conv3d(x.double(), weight.double(), bias.double()).relu()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_network_gives_the_same_fused(network, monkeypatch):
    monkeypatch.setattr(torch, "cudnn_convolution_relu", cudnn)
    patches = torch.rand(2, 1, 16, 16, 16)
    expected = network.classify(patches)
    fuse(network, True)
    units = [module for module in network.modules() if isinstance(module, Fusible)]
    assert len(units) == 3 + 9 * 6
    found = network.classify(patches)
    assert all(unit.fused for unit in units)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_where_cudnn_cannot_the_usual_kernels_take_over_for_good(network):
    patches = torch.rand(1, 1, 16, 16, 16)
    expected = network.classify(patches)
    fuse(network, True)
    torch.testing.assert_close(network.classify(patches), expected, rtol=1e-4, atol=1e-5)
    pointwise = {m for m in network.modules() if isinstance(m, ConvBnRelu) and m.conv3d.kernel_size == (1, 1, 1)}
    assert {module for module in network.modules() if isinstance(module, Fusible) and module.fused} == pointwise


def test_a_lack_of_memory_is_passed_on(network, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", fail)
    fuse(network, True)
    with pytest.raises(torch.OutOfMemoryError):
        network.classify(torch.rand(1, 1, 16, 16, 16))


def test_only_folded_units_are_fused():
    unit = ConvBnRelu(2, 2, same(1))
    fuse(unit, True)
    assert not unit.fused
    fold_batch_norm(unit.eval())
    fuse(unit, True)
    assert unit.fused
    fuse(unit, False)
    assert not unit.fused
