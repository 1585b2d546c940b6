"""Inception-I3D's first convolution on patches that are not upscaled: the same function at a tenth of the work.

The network's input is a patch upscaled by nearest neighbour, 64×64×64 to 64×128×128, in three equal channels. So every
2×2 voxels in plane are copies of one. A 7×7×7 convolution of stride 2 over them is a 7×4×4 convolution of stride (2, 1,
1) over the patch itself, whose kernel holds sums of the large one's weights. The small kernel is derived from the large
one in each pass, so that the large one is trained.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.models.backbone import same
from nodulemc.models.fused import Fusible
from nodulemc.models.layers import ConvBnRelu
from nodulemc.models.multitask import MultiTaskI3d
from nodulemc.patch import SIZE, UPSCALED

_UPSCALING = tuple(side // SIZE for side in UPSCALED)
_WINDOW = same(7, 2)  # the only window that is absorbed
_IN_PLANE = 4


class UpscaledStem(Fusible):
    """Replaces the stem's ``ConvBnRelu`` and keeps its parameters and key names."""

    def __init__(self, unit: ConvBnRelu) -> None:
        super().__init__()
        self.conv3d = unit.conv3d
        self.batch3d = unit.batch3d

    def forward(self, patches: Tensor) -> Tensor:
        """Return the stem's output for the upscaled patches, from patches (N, 1, S, S, S).

        The in-plane taps become channels, a layout in which matrix units are fast.
        """
        # The TensorFlow padding of 2 and 3 voxels is 1 and 1.5 patch voxels in plane.
        padded = F.pad(patches[:, 0], (1, 2, 1, 2, 2, 3))
        taps = padded.unfold(2, _IN_PLANE, 1).unfold(3, _IN_PLANE, 1).flatten(4)
        kernel = self._small_kernel().to(memory_format=torch.channels_last_3d)
        return self.unit(taps.permute(0, 4, 1, 2, 3), kernel, (2, 1, 1), (0, 0, 0))

    def _small_kernel(self) -> Tensor:
        weight = F.pad(self.conv3d.weight.sum(dim=1), (0, 1, 0, 1))
        in_plane: Tensor = weight.unflatten(2, (_IN_PLANE, 2)).unflatten(4, (_IN_PLANE, 2)).sum(dim=(3, 5))
        return in_plane.flatten(2).transpose(1, 2)[..., None, None]


def absorb_upscaling(network: MultiTaskI3d) -> None:
    """Let a stem like Inception-I3D's take patches without upscaling, in place. Other stems are left alone."""
    backbone = network.backbone
    name = backbone.stem_name.rpartition(".")[0]
    stem = backbone.get_submodule(name)
    if isinstance(stem, ConvBnRelu) and stem.window == _WINDOW:
        backbone.set_submodule(name, UpscaledStem(stem))


class PatchNetwork(nn.Module):
    """A multi-task network that takes patches. Called as in training, it returns the logits of all tasks."""

    def __init__(self, network: MultiTaskI3d, *, upscaled: bool = True) -> None:
        """Wrap a network whose input is upscaled patches or, if ``upscaled`` is false, the patches themselves."""
        super().__init__()
        self.network = network
        self._upscales = upscaled and not any(isinstance(module, UpscaledStem) for module in network.modules())

    @property
    def segments(self) -> bool:
        """Whether the network has a decoder."""
        return hasattr(self.network, "aux_model")

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Return malignancy logits (N,) and mask logits (N, S, S, S) of patches (N, 1, S, S, S), values 0…1.

        With a head for attributes, their logits (N, A) come last.
        """
        return self.network.forward_multitask(self._input(patches), patches.shape[-1])

    def classify(self, patches: Tensor) -> Tensor:
        """Return only malignancy logits (N,) of the same patches."""
        logits: Tensor = self.network(self._input(patches))
        return logits

    def classify_with_attributes(self, patches: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return malignancy logits (N,) of the same patches, and the logits (N,) of each attribute of the network."""
        if not self.network.attributes:
            return self.classify(patches), {}
        logits, attributes = self.network.forward_attributes(self._input(patches))
        return logits, self._by_name(attributes)

    def feature_maps(self, patches: Tensor) -> list[Tensor]:
        """Return all feature maps of the backbone, of the same patches."""
        return self.network.feature_maps(self._input(patches))

    def features(self, patches: Tensor) -> Tensor:
        """Return the features (N, F) that the heads read of the same patches. The malignancy head's come first."""
        return self.network.features(self._input(patches))

    def find_all(self, patches: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the results of ``classify_with_attributes`` for the same patches, and mask logits (N, S, S, S)."""
        logits, mask, *attributes = self(patches)
        return logits, self._by_name(*attributes) if attributes else {}, mask

    def _by_name(self, attributes: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.network.attributes, attributes.unbind(dim=1), strict=True))

    def _input(self, patches: Tensor) -> Tensor:
        return F.interpolate(patches, scale_factor=_UPSCALING) if self._upscales else patches
