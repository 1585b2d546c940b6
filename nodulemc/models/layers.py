"""Building blocks of Inception-I3D and the decoder: convolution units and max-pools with TensorFlow's padding."""

from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.models.channels_last import MaxPool3d
from nodulemc.models.fused import Fusible
from nodulemc.models.layouts import Triple, same_padding


class ConvUnit(Fusible):
    """Convolution without bias, BatchNorm (eps 1e-5), ReLU; "SAME" padding. Key names as in the reference."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        near, far = same_padding((kernel,) * 3, (stride,) * 3)
        # F.pad wants the last axis first; the three are alike.
        self.pad = None if near == far else next(zip(near, far, strict=True)) * 3
        self._stride: Triple = (stride,) * 3
        self._padding: Triple = (0, 0, 0) if self.pad else near
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, padding=self._padding, bias=False)
        self.batch3d = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, D, H, W) to (N, out_channels, D/stride, H/stride, W/stride)."""
        if self.pad is not None:
            x = F.pad(x, self.pad)
        return self.unit(x, self.conv3d.weight, self._stride, self._padding)


class SamePool(nn.Module):
    """Max-pool with "SAME" padding by zeros, which the ReLU before it makes the same as by −infinity."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        near, far = same_padding(kernel, stride)
        # Padding at the far side alone is what ceil mode does, without a padded copy.
        self.pool = MaxPool3d(kernel, stride, padding=near if near == far else (0, 0, 0), ceil_mode=near != far)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W), all ≥ 0, to (N, C, D/stride, H/stride, W/stride)."""
        pooled: Tensor = self.pool(x)
        return pooled
