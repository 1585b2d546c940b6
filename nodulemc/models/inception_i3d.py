"""Inception-I3D: Carreira & Zisserman 2017, arXiv:1705.07750, figure 3; key names as in the LUNA25 baseline."""

from torch import Tensor, nn

from nodulemc.models.channels_last import concatenate
from nodulemc.models.fused import Fusible
from nodulemc.models.layers import ConvUnit, SamePool
from nodulemc.models.layouts import (
    INCEPTION_BLOCKS,
    INCEPTION_BRANCH_POOL,
    INCEPTION_ORDER,
    INCEPTION_POOLS,
    INCEPTION_TAPS,
    INCEPTION_UNITS,
    TAP_CHANNELS,
)


class Mixed(nn.Module):
    """Inception block: four branches, concatenated."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3 = widths
        self.branch_0 = ConvUnit(in_channels, w0, 1)
        self.branch_1 = nn.Sequential(ConvUnit(in_channels, w1a, 1), ConvUnit(w1a, w1b, 3))
        self.branch_2 = nn.Sequential(ConvUnit(in_channels, w2a, 1), ConvUnit(w2a, w2b, 3))
        self.branch_3 = nn.Sequential(SamePool(*INCEPTION_BRANCH_POOL), ConvUnit(in_channels, w3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, D, H, W) to (N, w0 + w1b + w2b + w3, D, H, W)."""
        return concatenate([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)])


class InceptionI3d(nn.Module):
    """Inception-I3D without its classifier."""

    tap_channels = TAP_CHANNELS["inception_i3d"]
    conv3d_1a_7x7: Fusible  # the stem

    def __init__(self) -> None:
        super().__init__()
        for name, arguments in INCEPTION_UNITS.items():
            self.add_module(name, ConvUnit(*arguments))
        for name, pool in INCEPTION_POOLS.items():
            self.add_module(name, SamePool(*pool))
        for name, block in INCEPTION_BLOCKS.items():
            self.add_module(name, Mixed(*block))

    @property
    def stem(self) -> nn.Conv3d:
        """The first convolution."""
        return self.conv3d_1a_7x7.conv3d

    def taps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps from fine to coarse.

        Args:
            x: (N, 3, D, H, W); D divisible by 16, H and W by 32.

        Returns:
            After the stem (N, 64, D/2, H/2, W/2), conv3d_2c (N, 192, D/2, H/4, W/4), mixed_3c (N, 480, D/2,
            H/8, W/8), mixed_4f (N, 832, D/4, H/16, W/16) and mixed_5c (N, 1024, D/8, H/32, W/32).
        """
        taps = []
        for name in INCEPTION_ORDER:
            x = getattr(self, name)(x)
            if name in INCEPTION_TAPS:
                taps.append(x)
        return tuple(taps)
