"""The segmentation decoder: training's auxiliary task, and masks where they are asked for."""

from collections.abc import Sequence

from torch import Tensor, nn

from nodulemc.models.backbone import same
from nodulemc.models.channels_last import upsample
from nodulemc.models.layers import ConvBnRelu
from nodulemc.patch import SIZE


class SegmentationDecoder(nn.Module):
    """Five convolution stages from the coarsest feature map up; the next finer one is added to each but the last.

    Key names, order and He-normal initialisation as in MClab's public code. A stage narrower than the
    feature map it meets has that projected to its width (``project_1`` to ``project_4``).
    """

    block5: ConvBnRelu

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        *finer, coarsest = channels
        for stage, (before, width) in enumerate(zip((coarsest, *widths), widths, strict=False), start=1):
            self.add_module(f"block{stage}", ConvBnRelu(before, width, same(3)))
        for stage, (before, width) in enumerate(zip(reversed(finer), widths, strict=False), start=1):
            if before != width:
                self.add_module(f"project_{stage}", nn.Conv3d(before, width, 1))
        self.last_layer = nn.Conv3d(widths[-1], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, feature_maps: Sequence[Tensor], size: int = SIZE) -> Tensor:
        """Five feature maps, fine to coarse, to mask logits (N, size, size, size)."""
        *finer, x = feature_maps
        for stage, finer_map in enumerate(reversed(finer), start=1):
            x = getattr(self, f"block{stage}")(x)
            project = getattr(self, f"project_{stage}", nn.Identity())
            x = upsample(x, finer_map.shape[2:]) + project(finer_map)
        x = upsample(self.block5(x), (size,) * 3)
        logits: Tensor = self.last_layer(x)
        return logits.squeeze(1)


def published_widths(channels: Sequence[int]) -> tuple[int, ...]:
    """The reference's widths: each stage as wide as the feature map it meets, the last as the finest."""
    return (*reversed(channels[:-1]), channels[0])
