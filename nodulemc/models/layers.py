"""The building block of Inception-I3D and the decoder, and convolutions with any padding."""

from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.models.backbone import EPSILON, Window
from nodulemc.models.fused import Fusible


class ConvBnRelu(Fusible):
    """A convolution without bias, BatchNorm (eps 1e-5) and ReLU. Key names are those of the reference."""

    def __init__(self, in_channels: int, out_channels: int, window: Window) -> None:
        super().__init__()
        self.window = window
        self.conv3d = convolution(in_channels, out_channels, window)
        self.batch3d = nn.BatchNorm3d(out_channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, D, H, W) to (N, out_channels, D', H', W')."""
        return self.unit(padded(x, self.window), self.conv3d.weight, self.window.stride, _padding(self.window))


def convolution(in_channels: int, out_channels: int, window: Window) -> nn.Conv3d:
    """Return a convolution without bias, which is applied to the result of ``padded``."""
    return nn.Conv3d(in_channels, out_channels, window.kernel, window.stride, _padding(window), bias=False)


def padded(x: Tensor, window: Window) -> Tensor:
    """Return (N, C, D, H, W) with the padding that PyTorch's convolution cannot do: a different one at each side."""
    if window.near == window.far:
        return x
    sides = zip(reversed(window.near), reversed(window.far), strict=True)  # the last axis first
    return F.pad(x, [side for pair in sides for side in pair])


def _padding(window: Window) -> tuple[int, int, int]:
    return window.near if window.near == window.far else (0, 0, 0)
