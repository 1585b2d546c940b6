"""The segmentation decoder: training's auxiliary task, and masks where they are asked for."""

from collections.abc import Sequence

from torch import Tensor, nn

from nodulemc.models.channels_last import upsample
from nodulemc.models.layers import ConvUnit
from nodulemc.patch import SIZE


class SegmentationDecoder(nn.Module):
    """Five convolution stages from the coarsest tap up, each but the last fused with the next finer tap by addition.

    Key names, order and He-normal initialisation as in MClab's public code. A stage narrower than the tap
    it meets has the tap projected to its width (``project_1`` to ``project_4``).
    """

    block5: ConvUnit

    def __init__(self, tap_channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        *finer, coarsest = tap_channels
        for stage, (before, width) in enumerate(zip((coarsest, *widths), widths, strict=False), start=1):
            self.add_module(f"block{stage}", ConvUnit(before, width, 3))
        for stage, (tap, width) in enumerate(zip(reversed(finer), widths, strict=False), start=1):
            if tap != width:
                self.add_module(f"project_{stage}", nn.Conv3d(tap, width, 1))
        self.last_layer = nn.Conv3d(widths[-1], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, taps: Sequence[Tensor], size: int = SIZE) -> Tensor:
        """Five taps, fine to coarse, to mask logits (N, size, size, size)."""
        *finer, x = taps
        for stage, tap in enumerate(reversed(finer), start=1):
            x = getattr(self, f"block{stage}")(x)
            project = getattr(self, f"project_{stage}", nn.Identity())
            x = upsample(x, tap.shape[2:]) + project(tap)
        x = upsample(self.block5(x), (size,) * 3)
        logits: Tensor = self.last_layer(x)
        return logits.squeeze(1)


def published_widths(tap_channels: Sequence[int]) -> tuple[int, ...]:
    """The reference's widths: each stage as wide as the tap it meets, the last as the finest tap."""
    return (*reversed(tap_channels[:-1]), tap_channels[0])
