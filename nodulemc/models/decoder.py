"""The segmentation decoder: the auxiliary task of training, and the source of masks if they are asked for."""

from collections.abc import Sequence

from torch import Tensor, nn

from nodulemc.models.backbone import same
from nodulemc.models.channels_last import upsample
from nodulemc.models.layers import ConvBnRelu
from nodulemc.patch import SIZE


class SegmentationDecoder(nn.Module):
    """Five convolution stages from the coarsest feature map up. The next finer map is added to each stage but the last.

    Key names, order and He-normal initialisation are those of MClab's public code. If a stage is narrower than the
    feature map it meets, the map is projected to the stage's width (``project_1`` to ``project_4``).
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
        """Return mask logits (N, size, size, size) of five feature maps, fine to coarse."""
        *finer, x = feature_maps
        for stage, finer_map in enumerate(reversed(finer), start=1):
            x = getattr(self, f"block{stage}")(x)
            project = getattr(self, f"project_{stage}", nn.Identity())
            x = upsample(x, finer_map.shape[2:]) + project(finer_map)
        x = upsample(self.block5(x), (size,) * 3)
        logits: Tensor = self.last_layer(x)
        return logits.squeeze(1)


def published_widths(channels: Sequence[int]) -> tuple[int, ...]:
    """Return the reference's widths: each stage is as wide as the feature map it meets, the last as the finest."""
    return (*reversed(channels[:-1]), channels[0])
