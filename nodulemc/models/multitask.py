"""The multi-task network: a backbone, a malignancy head and, if wanted, an attribute head and a decoder."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.backbone import CENTRE_MAP, attribute_features, centre_of
from nodulemc.models.decoder import SegmentationDecoder
from nodulemc.models.torch_backbone import TorchBackbone
from nodulemc.patch import SIZE


class MultiTaskI3d(nn.Module):
    """The multi-task network. Key names are those of MClab's public code, and ``attribute_head``.

    MClab's names are ``backbone``, ``classifier_head`` and ``aux_model``. The attribute head gives the logits of the
    readers' mean ratings, on scales mapped to 0…1. It is a linear layer of the pooled features and of a finer feature
    map's maxima over the patch's central quarter along each axis.
    """

    def __init__(self, backbone: TorchBackbone, architecture: Architecture, *, with_decoder: bool) -> None:
        super().__init__()
        self.backbone = backbone
        widths = (backbone.channels[-1], *architecture.head_widths)
        hidden: list[nn.Module] = [
            layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), nn.ReLU(inplace=True))
        ]
        pooling: nn.Module = nn.AdaptiveAvgPool3d(1)
        if architecture.pooling == "windows_2x2x2":
            pooling = nn.Sequential(nn.AvgPool3d(2, stride=1), pooling)
        self.classifier_head = nn.Sequential(pooling, nn.Flatten(), *hidden, nn.Linear(widths[-1], 1))
        if with_decoder and architecture.decoder_widths is not None:
            self.aux_model = SegmentationDecoder(backbone.channels, architecture.decoder_widths)
        self.attributes = architecture.attributes
        # The last module, so that the others start with the same random weights with and without it.
        if self.attributes:
            self.attribute_head = nn.Linear(attribute_features(backbone.channels), len(self.attributes))

    def forward(self, x: Tensor) -> Tensor:
        """Return malignancy logits (N,).

        The input has values 0…1. It is (N, 1 or 3, 64, 128, 128), or 64³ for a network without upscaling.
        """
        return self._malignancy_logits(self._feature_maps(x)[-1])

    def forward_attributes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return malignancy logits (N,) and, with a head for them, attribute logits (N, A) of the same input."""
        maps = self._feature_maps(x)
        return self._malignancy_logits(maps[-1]), self._attribute_logits(maps, x)

    def forward_multitask(self, x: Tensor, mask_size: int = SIZE) -> tuple[Tensor, ...]:
        """Return malignancy logits (N,) and mask logits (N, size, size, size) of the same input.

        With a head for attributes, their logits (N, A) come last.
        """
        maps = self._feature_maps(x)
        outputs = self._malignancy_logits(maps[-1]), self.aux_model(maps, mask_size)
        return (*outputs, self._attribute_logits(maps, x)) if self.attributes else outputs

    def _malignancy_logits(self, coarsest: Tensor) -> Tensor:
        logits: Tensor = self.classifier_head(coarsest)
        return logits.squeeze(1)

    def _attribute_logits(self, maps: list[Tensor], x: Tensor) -> Tensor:
        pooling, flatten, *_ = self.classifier_head
        fine = maps[CENTRE_MAP]
        depth, height, width = centre_of(fine.shape[2:], x.shape[2] / SIZE)
        maxima = fine[:, :, depth, height, width].amax(dim=(2, 3, 4))
        logits: Tensor = self.attribute_head(torch.cat([flatten(pooling(maps[-1])), maxima], dim=1))
        return logits

    def _feature_maps(self, x: Tensor) -> list[Tensor]:
        # The stem's input channels are copies of the patch.
        return self.backbone.feature_maps(x.expand(-1, self.backbone.stem.in_channels, -1, -1, -1))


def create_model(architecture: Architecture, *, with_decoder: bool) -> MultiTaskI3d:
    """Build the network, freshly initialised, with or without its decoder."""
    backbone = TorchBackbone(BACKBONES[architecture.backbone])
    return MultiTaskI3d(backbone, architecture, with_decoder=with_decoder)
