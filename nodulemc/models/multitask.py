"""The multi-task network: a backbone, a malignancy head and, if wanted, an attribute head and a decoder."""

from itertools import pairwise

from torch import Tensor, nn

from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.decoder import SegmentationDecoder
from nodulemc.models.pooling import all_features, pooled_features
from nodulemc.models.torch_backbone import TorchBackbone
from nodulemc.patch import SIZE


class MultiTaskI3d(nn.Module):
    """The multi-task network. Key names are those of MClab's public code, and ``attribute_head``.

    MClab's names are ``backbone``, ``classifier_head`` and ``aux_model``. The attribute head gives the logits of the
    readers' mean ratings, on scales mapped to 0…1. It is a linear layer. See ``nodulemc.models.pooling`` for what the
    heads read.
    """

    def __init__(self, backbone: TorchBackbone, architecture: Architecture, *, with_decoder: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self._pooling = architecture.pooling
        self._maps_read = architecture.maps_read
        self._head_features = architecture.head_features
        widths = (architecture.head_features, *architecture.head_widths)
        hidden: list[nn.Module] = [
            layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), nn.ReLU(inplace=True))
        ]
        # The published head starts with a pooling and a flattening, so its first linear layer is number 2.
        self.classifier_head = nn.Sequential(nn.Identity(), nn.Identity(), *hidden, nn.Linear(widths[-1], 1))
        if with_decoder and architecture.decoder_widths is not None:
            self.aux_model = SegmentationDecoder(backbone.channels, architecture.decoder_widths)
        self.attributes = architecture.attributes
        # The last module, so that the others start with the same random weights with and without it.
        if self.attributes:
            self.attribute_head = nn.Linear(architecture.attribute_features, len(self.attributes))

    def forward(self, x: Tensor) -> Tensor:
        """Return malignancy logits (N,).

        The input has values 0…1. It is (N, 1 or 3, 64, 128, 128), or 64³ for a network without upscaling.
        """
        maps = self.feature_maps(x, self._maps_read)
        return self._malignancy_logits(pooled_features(maps, self._pooling, x.shape[2] / SIZE))

    def forward_attributes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return malignancy logits (N,) and, with a head for them, attribute logits (N, A) of the same input."""
        return self._head_logits(self.features(x))

    def forward_multitask(self, x: Tensor, mask_size: int = SIZE) -> tuple[Tensor, ...]:
        """Return malignancy logits (N,) and mask logits (N, size, size, size) of the same input.

        With a head for attributes, their logits (N, A) come last.
        """
        maps = self.feature_maps(x)
        if not self.attributes:
            pooled = pooled_features(maps, self._pooling, x.shape[2] / SIZE)
            return self._malignancy_logits(pooled), self.aux_model(maps, mask_size)
        logits, attributes = self._head_logits(all_features(maps, self._pooling, x.shape[2] / SIZE))
        return logits, self.aux_model(maps, mask_size), attributes

    def features(self, x: Tensor) -> Tensor:
        """Return the features (N, F) that the heads read of the same input. The malignancy head's come first."""
        return all_features(self.feature_maps(x, self._maps_read), self._pooling, x.shape[2] / SIZE)

    def _head_logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.attribute_head(features)
        return self._malignancy_logits(features[:, : self._head_features]), logits

    def _malignancy_logits(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.classifier_head(pooled)
        return logits.squeeze(1)

    def feature_maps(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """Return the backbone's feature maps of the same input: the ``count`` finest ones, or all."""
        # The stem's input channels are copies of the patch.
        return self.backbone.feature_maps(x.expand(-1, self.backbone.stem.in_channels, -1, -1, -1), count)


def create_model(architecture: Architecture, *, with_decoder: bool) -> MultiTaskI3d:
    """Build the network, freshly initialised, with or without its decoder."""
    backbone = TorchBackbone(BACKBONES[architecture.backbone])
    return MultiTaskI3d(backbone, architecture, with_decoder=with_decoder)
