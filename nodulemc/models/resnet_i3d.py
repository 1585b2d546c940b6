"""I3D with a ResNet-50: pytorchvideo's ``i3d_r50`` without its classifier."""

from pytorchvideo.models.hub import i3d_r50
from torch import Tensor, nn

from nodulemc.models.channels_last import MaxPool3d
from nodulemc.models.layouts import RESNET_POOL, RESNET_STEM_POOL, TAP_CHANNELS


class I3dR50(nn.Module):
    """Inflated ResNet-50; parameter names are pytorchvideo's (``blocks.0`` stem to ``blocks.5`` last stage)."""

    tap_channels = TAP_CHANNELS["i3d_r50"]

    def __init__(self) -> None:
        super().__init__()
        # Block 2 is a pooling between the first two stages, block 6 the classifier.
        self.blocks = i3d_r50(pretrained=False).blocks[:6]
        kernel, stride = RESNET_STEM_POOL
        self.blocks[0].pool = MaxPool3d(kernel, stride, padding=tuple(k // 2 for k in kernel))
        self.blocks[2] = MaxPool3d(*RESNET_POOL, padding=(0, 0, 0))

    @property
    def stem(self) -> nn.Conv3d:
        """The first convolution."""
        convolution: nn.Conv3d = self.blocks[0].conv
        return convolution

    def taps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps from fine to coarse.

        Args:
            x: (N, 3, D, H, W); D divisible by 2, H and W by 32.

        Returns:
            After the stem and its pool (N, 64, D, H/4, W/4), then after the four residual stages (N, 256, D,
            H/4, W/4), (N, 512, D/2, H/8, W/8), (N, 1024, D/2, H/16, W/16) and (N, 2048, D/2, H/32, W/32).
        """
        taps = []
        for position, block in enumerate(self.blocks):
            x = block(x)
            if position != 2:
                taps.append(x)
        return tuple(taps)
