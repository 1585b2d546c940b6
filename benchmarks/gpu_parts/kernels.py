"""Fast: pools, layout changes, upsampling, bias and ReLU, each in the package's way beside PyTorch's usual way."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from measure import seconds
from torch import Tensor
from torch.nn import functional as F

from gpu_parts.row import Row, attempt
from gpu_parts.setting import UNTRAINED, Setting, ShrunkNetwork, probes
from nodulemc.ensemble.backends.torch_backend import DTYPES
from nodulemc.models import channels_last
from nodulemc.models.architecture import BACKBONES
from nodulemc.models.backbone import Triple, Window, same
from nodulemc.models.decoder import published_widths
from nodulemc.models.fused import convolution_relu, fuse
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork, absorb_upscaling

_BATCH, _TRAINING_BATCH, _INNER, _SHRINK = 8, 32, 5, 4
Shape = tuple[int, int, int, int]  # C, D, H, W
_POOLED: dict[str, tuple[Shape, Window]] = {
    "pool_2a": ((64, 32, 64, 64), same((1, 3, 3), (1, 2, 2))),
    "pool_3a": ((192, 32, 32, 32), same((1, 3, 3), (1, 2, 2))),
    "pool_4a": ((480, 32, 16, 16), same(3, 2)),
    "pool_5a": ((832, 16, 8, 8), same(2, 2)),
    "pool of mixed_3c": ((256, 32, 16, 16), same(3)),
    "pool of mixed_4b": ((480, 16, 8, 8), same(3)),
}
_CONCATENATED: tuple[Shape, ...] = tuple((width, 16, 8, 8) for width in (192, 208, 48, 64))
_UPSAMPLED: dict[str, tuple[Shape, Triple]] = {
    "upsampling 832×8×4×4": ((832, 8, 4, 4), (16, 8, 8)),
    "upsampling 192×32×16×16": ((192, 32, 16, 16), (32, 32, 32)),
    "upsampling 64×32×64×64": ((64, 32, 64, 64), (64, 64, 64)),
}
_CONVOLVED: dict[str, tuple[Shape, int, Triple, Triple]] = {  # input, output's channels, kernel, stride
    "convolution 7×1×1, bias, ReLU": ((16, 69, 64, 64), 64, (7, 1, 1), (2, 1, 1)),
    "convolution 3×3×3 of 64, bias, ReLU": ((64, 32, 32, 32), 192, (3, 3, 3), (1, 1, 1)),
    "convolution 3×3×3 of 96, bias, ReLU": ((96, 16, 8, 8), 208, (3, 3, 3), (1, 1, 1)),
    "convolution 1×1×1, bias, ReLU": ((480, 16, 8, 8), 192, (1, 1, 1), (1, 1, 1)),
}
Run = Callable[[], Tensor]


def rows(setting: Setting) -> Iterator[Row]:
    """Measure inference of a batch of 8 in the shorter precision, and training of one of 32. The networks come last."""
    for name, (shape, window) in _POOLED.items():
        yield from attempt(name, _pool(setting, name, shape, window))
    yield from attempt("concatenation", _concatenation(setting))
    for name, arguments in _CONVOLVED.items():
        yield from attempt(name, _convolution(setting, name, *arguments))
    for name, arguments in _UPSAMPLED.items():
        yield from attempt(name, _upsampling(setting, name, *arguments))
    for name, fused in (("a member", False), ("a member, fused", True)):
        yield from attempt(name, _member(setting, name, fused))
    yield from attempt("a training step", _training(setting))


def _beside(setting: Setting, name: str, ours: Run, usual: Run, inner: int = _INNER) -> Row:
    """Return milliseconds of the package's and the usual way, and the largest difference between their results."""
    difference = float((ours().double() - usual().double()).abs().max())
    our_s, usual_s = (_each(setting, run, inner) for run in (ours, usual))
    beside = f"PyTorch's usual way {1e3 * usual_s:.4g}, {usual_s / our_s:.3g} times; difference {difference:.1e}"
    return Row(name, 1e3 * our_s, "ms", beside)


def _each(setting: Setting, run: Run, inner: int) -> float:
    """Return the seconds of one of several runs in a row, as a GPU does them without waiting for the CPU."""
    inner = 1 if setting.small else inner
    return seconds(lambda: [run() for _ in range(inner)], setting.repeats, setting.device) / inner


def _taken(yes: bool, run: Run) -> Run:
    """Return a run that takes the 2-D ways of ``channels_last`` everywhere, or nowhere."""

    def taken() -> Tensor:
        before, channels_last.fits = channels_last.fits, lambda _: yes
        try:
            return run()
        finally:
            channels_last.fits = before

    return taken


def _activations(setting: Setting, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
    channels, *sides = shape
    if setting.small:
        channels, sides = min(channels, 16), [max(side // _SHRINK, 2) for side in sides]
    x = torch.randn(2 if setting.small else _BATCH, channels, *sides, device=setting.device).relu()
    return x.to(dtype or DTYPES[setting.half]).contiguous(memory_format=torch.channels_last_3d)


def _pool(setting: Setting, name: str, shape: Shape, window: Window) -> Iterator[Row]:
    def pool(x: Tensor) -> Tensor:
        return channels_last.max_pool3d(x, window)

    x = _activations(setting, shape)
    yield _beside(setting, name, _taken(True, lambda: pool(x)), _taken(False, lambda: pool(x)))
    both = _with_gradient(x, pool)
    yield _beside(setting, f"{name}, with its gradient", _taken(True, both), _taken(False, both))


def _with_gradient(x: Tensor, layer: Callable[[Tensor], Tensor]) -> Run:
    leaf = x.clone().requires_grad_()

    def both() -> Tensor:
        y = layer(leaf)
        return torch.autograd.grad(y, leaf, torch.ones_like(y))[0]

    return both


def _concatenation(setting: Setting) -> Iterator[Row]:
    parts = [_activations(setting, shape) for shape in _CONCATENATED]

    def concatenate() -> Tensor:
        return channels_last.concatenate(parts)

    yield _beside(setting, "concatenation", _taken(True, concatenate), _taken(False, concatenate))


def _upsampling(setting: Setting, name: str, shape: Shape, size: Triple) -> Iterator[Row]:
    # In mixed precision upsampling is in fp32.
    x = _activations(setting, shape, torch.float32)
    size = tuple(side // _SHRINK for side in size) if setting.small else size
    both = _with_gradient(x, lambda leaf: channels_last.upsample(leaf, size))
    yield _beside(setting, f"{name}, with its gradient", _taken(True, both), _taken(False, both))


@torch.no_grad()
def _convolution(
    setting: Setting, name: str, shape: Shape, outputs: int, kernel: Triple, stride: Triple
) -> Iterator[Row]:
    x = _activations(setting, shape)
    padding = tuple(k // 2 if s == 1 else 0 for k, s in zip(kernel, stride, strict=True))
    weight = torch.randn(outputs, x.shape[1], *kernel, device=setting.device) / x[0].numel() ** 0.5
    weight = weight.to(x.dtype).contiguous(memory_format=torch.channels_last_3d)
    bias = torch.randn(outputs, device=setting.device).to(x.dtype)

    def usual() -> Tensor:
        return F.relu(F.conv3d(x, weight, bias, stride, padding), inplace=True)

    def ours() -> Tensor:
        return convolution_relu(x, weight, bias, stride, padding)

    if kernel != (1, 1, 1):
        setting.require_gpu()
    # cuDNN gets the output as a summand of weight 0. The previous content of its memory must have no effect.
    expected = usual()
    torch.full_like(expected, torch.nan)
    if not torch.isfinite(ours()).all():
        raise RuntimeError("its result holds what was in the output's memory before")
    yield _beside(setting, name, ours, usual)


def _member(setting: Setting, name: str, fused: bool) -> Iterator[Row]:
    """Measure one member beside itself without any of these."""
    dtype, layout = DTYPES[setting.half], torch.channels_last_3d
    ours, usual = (setting.networks()[0].to(setting.device, dtype, memory_format=layout) for _ in range(2))
    fuse(ours, fused)
    batch = torch.from_numpy(probes(2 if setting.small else _BATCH)).unsqueeze(1).to(setting.device, dtype)
    with torch.no_grad():
        yield _beside(
            setting,
            f"{name}, batch {len(batch)}",
            _taken(True, lambda: torch.sigmoid(ours.classify(batch))),
            _taken(False, lambda: torch.sigmoid(usual.classify(batch))),
        )


def _training(setting: Setting) -> Iterator[Row]:
    """Measure forward and backward of the published network in bf16, without the optimizer."""
    torch.manual_seed(0)
    widths = UNTRAINED.decoder_widths if setting.small else published_widths(BACKBONES[UNTRAINED.backbone].channels)
    network = create_model(replace(UNTRAINED, decoder_widths=widths), with_decoder=True)
    absorb_upscaling(network)
    network = ShrunkNetwork(network) if setting.small else PatchNetwork(network)
    network = network.to(setting.device, memory_format=torch.channels_last_3d).train()
    batch = torch.from_numpy(probes(2 if setting.small else _TRAINING_BATCH)).unsqueeze(1).to(setting.device)

    def step() -> Tensor:
        network.zero_grad()
        with torch.autocast(setting.device, torch.bfloat16, enabled=not setting.small):
            logits, masks, *_ = network(batch)
        loss = F.softplus(logits.float()).mean() + torch.sigmoid(masks.float()).mean()
        loss.backward()
        return loss.detach()

    yield _beside(setting, f"a training step, batch {len(batch)}", _taken(True, step), _taken(False, step), inner=1)
