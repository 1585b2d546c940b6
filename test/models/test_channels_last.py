from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nodulemc.models import channels_last
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.backbone import INPUT_CHANNELS, ChannelCounts
from nodulemc.models.channels_last import concatenate, max_pool, max_pool3d, upsample
from nodulemc.models.multitask import create_model


class Pools(ChannelCounts):
    """Notes every pool."""

    def __init__(self, backbone):
        self.windows = []
        list(BACKBONES[backbone].feature_maps(self, INPUT_CHANNELS))

    def max_pool(self, x, window):
        self.windows.append(window)
        return x


INCEPTION_POOLS = {*Pools("inception_i3d").windows}
POOLS = (*INCEPTION_POOLS, *Pools("i3d_r50").windows)
SHAPES = ((2, 6, 8, 8, 8), (3, 5, 7, 9, 5), (1, 1, 4, 6, 4), (2, 8, 2, 2, 2), (1, 16, 6, 8, 8))


@pytest.fixture
def two_d(monkeypatch):
    """Let the CPU take the GPU's way."""
    monkeypatch.setattr(channels_last, "fits", lambda x: x.is_contiguous(memory_format=torch.channels_last_3d))


def activations(shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).relu()
    return x.contiguous(memory_format=torch.channels_last_3d)


def arguments(kernel, stride, near, far):
    return (kernel, stride, near if near == far else (0, 0, 0)), {"ceil_mode": near != far}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_pool_of_the_networks_is_pytorchs_bit_for_bit(shape, dtype):
    for pool in POOLS:
        x, (sizes, mode) = activations(shape, dtype), arguments(*pool)
        found = max_pool(x, *sizes, **mode)
        assert torch.equal(found, F.max_pool3d(x, *sizes, **mode)), pool
        assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_any_kernel_stride_and_padding_of_any_values_is_pytorchs():
    x = torch.randn((2, 3, 7, 9, 8), generator=torch.Generator().manual_seed(1))
    for kernel, stride, ceil in product(product((1, 2, 3), repeat=3), ((1, 1, 1), (2, 1, 3), (1, 2, 2)), (False, True)):
        padding = tuple(k // 2 for k in kernel)
        expected = F.max_pool3d(x, kernel, stride, padding, ceil_mode=ceil)
        assert torch.equal(max_pool(x, kernel, stride, padding, ceil_mode=ceil), expected), (kernel, stride)


def test_far_padding_is_by_zeros_as_in_tensorflow(two_d):
    for window in INCEPTION_POOLS:
        x = activations((2, 4, 8, 8, 8))
        kernel, stride, near, far = window
        padded = F.pad(x, [side for axis in (2, 1, 0) for side in (near[axis], far[axis])])
        assert torch.equal(max_pool3d(x, window), F.max_pool3d(padded, kernel, stride))


@pytest.mark.parametrize("shape", SHAPES)
def test_without_ties_the_gradients_are_pytorchs(shape):
    count = torch.Size(shape).numel()
    for pool in POOLS:
        (sizes, mode), grads = arguments(*pool), []
        for run in (max_pool, F.max_pool3d):
            order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
            x = order.double().reshape(shape).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
            y = run(x, *sizes, **mode)
            y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
            grads.append(x.grad)
        torch.testing.assert_close(*grads, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2])
def test_no_step_copies_what_is_channels_last(monkeypatch, n):
    x, seen = activations((n, 8, 4, 6, 4)), []
    pool = F.max_pool2d
    monkeypatch.setattr(F, "max_pool2d", lambda p, *sizes, **mode: (seen.append(p), pool(p, *sizes, **mode))[1])
    max_pool(x, (3, 3, 3), (1, 1, 1), (1, 1, 1))
    # A step along one of a size-one axis counts, too: PyTorch takes the layout from it.
    assert seen[1].stride(0) == 8 * 4 * 6 * 4
    assert [tuple(p.shape) for p in seen] == [(4 * n, 8, 6, 4), (n, 8, 4, 24)]
    assert seen[0].data_ptr() == x.data_ptr()
    assert all(p.stride(1) == 1 and p.is_contiguous(memory_format=torch.channels_last) for p in seen)


@pytest.mark.parametrize("size", [(8, 12, 10), (4, 12, 10), (8, 6, 5), (5, 7, 11)])
def test_upsampling_is_trilinear(two_d, size):
    x = activations((2, 3, 4, 6, 5)).double().requires_grad_()
    found, expected = upsample(x, size), F.interpolate(x, size=size, mode="trilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_concatenation_is_by_channels_and_stays_channels_last(two_d):
    parts = [activations((2, channels, 3, 4, 5), torch.bfloat16, channels).requires_grad_() for channels in (3, 1, 8)]
    found = concatenate(parts)
    assert torch.equal(found, torch.cat(parts, dim=1))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    weights = torch.randn(found.shape)
    (found * weights).sum().backward()
    torch.testing.assert_close(torch.cat([part.grad for part in parts], dim=1).float(), weights.bfloat16().float())


@pytest.mark.parametrize("backbone", ["inception_i3d", "i3d_r50"])
def test_a_network_gives_the_same_either_way(backbone, monkeypatch):
    torch.manual_seed(0)
    model = create_model(Architecture(backbone, decoder_widths=(8,) * 5), with_decoder=True).eval()
    model = model.to(memory_format=torch.channels_last_3d)
    for parameter in model.backbone.parameters():
        if parameter.ndim == 5:
            nn.init.kaiming_normal_(parameter)
    # In double precision, as a convolution's sums depend on the layout of what it is given.
    model, x, asked = model.double(), torch.rand(2, 1, 16, 32, 32, dtype=torch.float64), []
    with torch.no_grad():
        expected = model.forward_multitask(x, 16)
        monkeypatch.setattr(channels_last, "fits", lambda tensor: asked.append(tensor) or True)
        found = model.forward_multitask(x, 16)
    # Pools, concatenated branches, and the decoder's stages.
    assert len(asked) == {"inception_i3d": 4 + 9 + 9 * 4 + 5, "i3d_r50": 2 + 5}[backbone]
    assert expected[0].std() > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
