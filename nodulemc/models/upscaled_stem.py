"""Inception-I3D's first convolution on patches that are not upscaled yet: the same function at a tenth of the work.

The network's input is a patch upscaled by nearest neighbour, 64×64×64 to 64×128×128, in three equal channels. Every
2×2 voxels in plane are then copies of one, and a 7×7×7 convolution of stride 2 over them is a 7×4×4 convolution of
stride (2, 1, 1) over the patch itself, whose kernel holds sums of the large one's weights. The small kernel is
derived from the large one in each pass, so that the large one is trained.
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
_WINDOW = same(7, 2)  # the only one that is absorbed
_IN_PLANE = 4


class UpscaledStem(Fusible):
    """Takes the place of the stem's ``ConvBnRelu``, whose parameters and key names it keeps."""

    def __init__(self, unit: ConvBnRelu) -> None:
        super().__init__()
        self.conv3d = unit.conv3d
        self.batch3d = unit.batch3d

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 1, S, S, S) to what the stem gives for the upscaled patches.

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
    """Let the network's stem take patches without upscaling, in place, where it is one like Inception-I3D's."""
    backbone = network.backbone
    name = backbone.stem_name.rpartition(".")[0]
    stem = backbone.get_submodule(name)
    if isinstance(stem, ConvBnRelu) and stem.window == _WINDOW:
        backbone.set_submodule(name, UpscaledStem(stem))


class PatchNetwork(nn.Module):
    """A multi-task network that takes patches: as training calls it, all tasks' logits out."""

    def __init__(self, network: MultiTaskI3d, *, upscaled: bool = True) -> None:
        """Wrap a network that is to be fed upscaled patches, or, where ``upscaled`` is false, patches as they are."""
        super().__init__()
        self.network = network
        self._upscales = upscaled and not any(isinstance(module, UpscaledStem) for module in network.modules())

    @property
    def segments(self) -> bool:
        """Whether the network has a decoder."""
        return hasattr(self.network, "aux_model")

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, S, S, S), values 0…1, to malignancy logits (N,), mask logits (N, S, S, S) and, where the network has
        a head for them, attribute logits (N, A).
        """
        return self.network.forward_multitask(self._input(patches), patches.shape[-1])

    def classify(self, patches: Tensor) -> Tensor:
        """The same patches to malignancy logits (N,) alone."""
        logits: Tensor = self.network(self._input(patches))
        return logits

    def classify_with_attributes(self, patches: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same patches to malignancy logits (N,) and the logits (N,) of each attribute that the network tells."""
        if not self.network.attributes:
            return self.classify(patches), {}
        logits, attributes = self.network.forward_attributes(self._input(patches))
        return logits, self._by_name(attributes)

    def find_all(self, patches: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What ``classify_with_attributes`` gives of the same patches, and mask logits (N, S, S, S)."""
        logits, mask, *attributes = self(patches)
        return logits, self._by_name(*attributes) if attributes else {}, mask

    def _by_name(self, attributes: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.network.attributes, attributes.unbind(dim=1), strict=True))

    def _input(self, patches: Tensor) -> Tensor:
        return F.interpolate(patches, scale_factor=_UPSCALING) if self._upscales else patches
