"""The multi-task network: one backbone, a malignancy head and, where wanted, an attribute head and a decoder."""

from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.decoder import SegmentationDecoder
from nodulemc.models.inception_i3d import InceptionI3d
from nodulemc.models.layouts import CENTRE_TAP, attribute_features, centre_of
from nodulemc.patch import SIZE

if TYPE_CHECKING:
    from nodulemc.models.resnet_i3d import I3dR50

Backbone: TypeAlias = "InceptionI3d | I3dR50"


class MultiTaskI3d(nn.Module):
    """Key names as in MClab's public code: ``backbone``, ``classifier_head``, ``aux_model``; and ``attribute_head``.

    The attribute head gives the logits of the readers' mean ratings on scales made 0…1: a linear layer of the pooled
    features and of a finer tap's maxima over the patch's central quarter along each axis.
    """

    def __init__(self, backbone: Backbone, architecture: Architecture, *, with_decoder: bool) -> None:
        super().__init__()
        self.backbone = backbone
        widths = (backbone.tap_channels[-1], *architecture.head_widths)
        hidden: list[nn.Module] = [
            layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), nn.ReLU(inplace=True))
        ]
        pooling: nn.Module = nn.AdaptiveAvgPool3d(1)
        if architecture.pooling == "windows_2x2x2":
            pooling = nn.Sequential(nn.AvgPool3d(2, stride=1), pooling)
        self.classifier_head = nn.Sequential(pooling, nn.Flatten(), *hidden, nn.Linear(widths[-1], 1))
        if with_decoder and architecture.decoder_widths is not None:
            self.aux_model = SegmentationDecoder(backbone.tap_channels, architecture.decoder_widths)
        self.attributes = architecture.attributes
        # The last one, so that the others start with the same random weights with it and without.
        if self.attributes:
            self.attribute_head = nn.Linear(attribute_features(architecture.backbone), len(self.attributes))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or 3, 64, 128, 128), or 64³ for one that is not fed upscaled, values 0…1, to malignancy logits (N,)."""
        return self._malignancy_logits(self._taps(x)[-1])

    def forward_attributes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same input to malignancy logits (N,) and, with a head for them, attribute logits (N, A)."""
        taps = self._taps(x)
        return self._malignancy_logits(taps[-1]), self._attribute_logits(taps, x)

    def forward_multitask(self, x: Tensor, mask_size: int = SIZE) -> tuple[Tensor, ...]:
        """The same input to malignancy logits (N,), mask logits (N, size, size, size) and, where there is a head for
        them, attribute logits (N, A).
        """
        taps = self._taps(x)
        outputs = self._malignancy_logits(taps[-1]), self.aux_model(taps, mask_size)
        return (*outputs, self._attribute_logits(taps, x)) if self.attributes else outputs

    def _malignancy_logits(self, tap: Tensor) -> Tensor:
        logits: Tensor = self.classifier_head(tap)
        return logits.squeeze(1)

    def _attribute_logits(self, taps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        pooling, flatten, *_ = self.classifier_head
        fine = taps[CENTRE_TAP]
        depth, height, width = centre_of(fine.shape[2:], x.shape[2] / SIZE)
        maxima = fine[:, :, depth, height, width].amax(dim=(2, 3, 4))
        logits: Tensor = self.attribute_head(torch.cat([flatten(pooling(taps[-1])), maxima], dim=1))
        return logits

    def _taps(self, x: Tensor) -> tuple[Tensor, ...]:
        # The stem's input channels are copies of the one patch.
        return self.backbone.taps(x.expand(-1, self.backbone.stem.in_channels, -1, -1, -1))


def create_model(architecture: Architecture, *, with_decoder: bool) -> MultiTaskI3d:
    """Build the network, freshly initialised, with its decoder or without.

    Raises:
        EnsembleError: the I3D-R50 is wanted and pytorchvideo or torchvision is not installed.
    """
    backbone = InceptionI3d() if architecture.backbone == "inception_i3d" else _create_i3d_r50()
    return MultiTaskI3d(backbone, architecture, with_decoder=with_decoder)


def _create_i3d_r50() -> "I3dR50":
    try:
        # pytorchvideo's models import torchvision, which takes a second or two.
        from nodulemc.models.resnet_i3d import I3dR50
    except ModuleNotFoundError as error:
        raise EnsembleError(
            f"the package {error.name} is missing", "backbone i3d_r50", "install nodulemc[i3d-r50]"
        ) from error
    return I3dR50()
