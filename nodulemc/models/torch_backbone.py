"""A backbone's description as a PyTorch module, whose tensors have the published names."""

from collections.abc import Sequence
from itertools import islice
from operator import attrgetter
from typing import cast

from torch import Tensor, nn

from nodulemc.models.backbone import EPSILON, INPUT_CHANNELS, Backbone, ChannelCounts, Layers, Window
from nodulemc.models.channels_last import concatenate, max_pool3d
from nodulemc.models.layers import ConvBnRelu, convolution, padded


class TorchBackbone(nn.Module):
    """A backbone in PyTorch, freshly initialised.

    Attributes:
        channels: The numbers of channels of the feature maps.
        stem_name: The path of the first convolution.
        pairs: The paths of the convolutions that are not in a ``ConvBnRelu``, each with its BatchNorm's path.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._backbone = backbone
        self.channels = backbone.channels
        self.pairs: list[tuple[str, str]] = []
        # It is a module, so that hooks see its output.
        self.activation = nn.ReLU()
        list(backbone.feature_maps(_Builder(self), INPUT_CHANNELS))
        convolutions = {name: module for name, module in self.named_modules() if isinstance(module, nn.Conv3d)}
        self.stem_name = next(iter(convolutions))
        if backbone.he_normal:
            for module in convolutions.values():
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for _, norm in self.pairs:
            if backbone.zero_norms is not None and norm.endswith(backbone.zero_norms):
                nn.init.zeros_(self.get_submodule(norm).get_parameter("weight"))

    @property
    def stem(self) -> nn.Conv3d:
        """The first convolution."""
        return cast("nn.Conv3d", self.get_submodule(self.stem_name))

    @property
    def fine_stages(self) -> list[nn.Module]:
        """The convolutions and BatchNorms that the maps of pooling "centre" are made by."""
        return [self.get_submodule(name) for name in self._backbone.fine_stages]

    def feature_maps(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """Return feature maps of (N, 3, D, H, W) from fine to coarse, see the backbone's description.

        Args:
            x: The input.
            count: The number of maps wanted; the finest come first. None for all.
        """
        return list(islice(self._backbone.feature_maps(_Forward(self), x), count))


class _Builder(ChannelCounts):
    """Adds modules under the names of the description."""

    def __init__(self, module: TorchBackbone) -> None:
        self._module = module

    def conv_bn(self, x: int, conv: str, norm: str, channels: int, window: Window) -> int:
        self._place(conv, convolution(x, channels, window))
        self._place(norm, nn.BatchNorm3d(channels, EPSILON))
        self._module.pairs.append((conv, norm))
        return channels

    def conv_bn_relu(self, x: int, name: str, channels: int, window: Window) -> int:
        self._place(name, ConvBnRelu(x, channels, window))
        return channels

    def _place(self, name: str, module: nn.Module) -> None:
        *parents, leaf = name.split(".")
        parent: nn.Module = self._module
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, module)


class _Forward(Layers[Tensor]):
    """Applies the modules that the description names."""

    def __init__(self, module: TorchBackbone) -> None:
        self._module = module

    def conv_bn(self, x: Tensor, conv: str, norm: str, channels: int, window: Window) -> Tensor:
        return self._applied(norm, self._applied(conv, padded(x, window)))

    def conv_bn_relu(self, x: Tensor, name: str, channels: int, window: Window) -> Tensor:
        return self._applied(name, x)

    def relu(self, x: Tensor) -> Tensor:
        return self._applied("activation", x)

    def max_pool(self, x: Tensor, window: Window) -> Tensor:
        return max_pool3d(x, window)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def concatenate(self, values: Sequence[Tensor]) -> Tensor:
        return concatenate(list(values))

    def _applied(self, name: str, x: Tensor) -> Tensor:
        # This is several times faster than get_submodule, for which a GPU would wait.
        output: Tensor = attrgetter(name)(self._module)(x)
        return output
