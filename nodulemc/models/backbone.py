"""The language in which a backbone is described once, for all its uses. Needs no torch.

A description calls layers in order, as a ``forward`` of PyTorch does. The provider of the layers decides what they
apply to. ``nodulemc.models.tensor_shapes`` applies them to numbers of channels, ``nodulemc.models.torch_backbone`` to
tensors, and ``nodulemc.ensemble.backends.openvino_graph`` to the nodes of a graph. None of them knows any backbone. A
new one is a module like ``nodulemc.models.inception_i3d``, named in ``nodulemc.models.architecture.BACKBONES``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

Triple = tuple[int, int, int]
Value = TypeVar("Value")
EPSILON = 1e-5  # of every BatchNorm
INPUT_CHANNELS = 3  # copies of the one patch, because published I3D weights expect colours
# The finer feature maps that heads may read at the patch's centre: the density and texture of small nodules are lost on
# the way to the coarsest map. Attributes are also predicted from the maxima of one. Pooling "centre" reads three, over
# two parts of the patch: 12.5 and 6.25 mm.
ATTRIBUTE_MAP = 1
CENTRE_MAPS = (0, 1, 2)
CENTRE_PARTS = (4, 8)


class Window(NamedTuple):
    """The place of a convolution's or pool's windows, in voxels along D, H and W.

    Attributes:
        kernel: The size of a window.
        stride: The distance from one window to the next.
        near, far: The padding before and after the input.
    """

    kernel: Triple
    stride: Triple
    near: Triple
    far: Triple


def same(kernel: int | Triple, stride: int | Triple = 1) -> Window:
    """Return a window with TensorFlow's "SAME" padding, for input sizes that the stride divides.

    The total padding of an axis is kernel − stride. If that is odd, the extra voxel is at the far side.
    """
    kernel, stride = triple(kernel), triple(stride)
    padding = triple(max(k - s, 0) for k, s in zip(kernel, stride, strict=True))
    near = triple(total // 2 for total in padding)
    return Window(kernel, stride, near, triple(total - n for total, n in zip(padding, near, strict=True)))


def centred(kernel: int | Triple, stride: int | Triple = 1) -> Window:
    """Return a window of odd size whose first place is centred on the first voxel, as is usual in PyTorch."""
    kernel = triple(kernel)
    side = triple(k // 2 for k in kernel)
    return Window(kernel, triple(stride), side, side)


def triple(values: int | Iterable[int]) -> Triple:
    """Return one number for each axis, from three numbers or one."""
    depth, height, width = (values,) * 3 if isinstance(values, int) else values
    return depth, height, width


class Layers(ABC, Generic[Value]):
    """The layers that a description can call. Names are those of the published tensors, without the last part."""

    @abstractmethod
    def conv_bn(self, x: Value, conv: str, norm: str, channels: int, window: Window) -> Value:
        """Apply a convolution without bias, with this number of output channels, and its BatchNorm."""

    @abstractmethod
    def relu(self, x: Value) -> Value:
        """Return the positive part."""

    @abstractmethod
    def max_pool(self, x: Value, window: Window) -> Value:
        """Return the maximum of each window. Every input is the output of a ReLU, so padding is never the maximum."""

    @abstractmethod
    def add(self, a: Value, b: Value) -> Value:
        """Return the sum of two values of the same shape."""

    @abstractmethod
    def concatenate(self, values: Sequence[Value]) -> Value:
        """Join the channels of some values."""

    def conv_bn_relu(self, x: Value, name: str, channels: int, window: Window) -> Value:
        """Apply a convolution, BatchNorm and ReLU as one unit, with the LUNA25 baseline's key names."""
        return self.relu(self.conv_bn(x, f"{name}.conv3d", f"{name}.batch3d", channels, window))


class ChannelCounts(Layers[int]):
    """Layers that apply to a number of channels."""

    def conv_bn(self, x: int, conv: str, norm: str, channels: int, window: Window) -> int:
        """Return the convolution's own number."""
        return channels

    def relu(self, x: int) -> int:
        """Return the same number."""
        return x

    def max_pool(self, x: int, window: Window) -> int:
        """Return the same number."""
        return x

    def add(self, a: int, b: int) -> int:
        """Return the same number."""
        return a

    def concatenate(self, values: Sequence[int]) -> int:
        """Return the sum."""
        return sum(values)


class LayerNames(Layers[frozenset[str]]):
    """Layers that apply to the names of the convolutions and BatchNorms that a value has passed through."""

    def conv_bn(self, x: frozenset[str], conv: str, norm: str, channels: int, window: Window) -> frozenset[str]:
        """Return the names with these two."""
        return x | {conv, norm}

    def relu(self, x: frozenset[str]) -> frozenset[str]:
        """Return the same names."""
        return x

    def max_pool(self, x: frozenset[str], window: Window) -> frozenset[str]:
        """Return the same names."""
        return x

    def add(self, a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
        """Return both values' names."""
        return a | b

    def concatenate(self, values: Sequence[frozenset[str]]) -> frozenset[str]:
        """Return all values' names."""
        return frozenset().union(*values)


@dataclass(frozen=True)
class KineticsFile:
    """A published file of Kinetics-400 weights.

    Attributes:
        name: The file's name.
        url: The address where it is published.
        size: The size in bytes. None if it is not known.
        sha256: The checksum. None if the publisher states none.
        classifier: The prefix of the tensors of the Kinetics classifier, which the backbone does not have. None if the
            file's reader leaves them out.
    """

    name: str
    url: str
    size: int | None
    sha256: str | None
    classifier: str | None

    def by_hand(self, path: Path, sha256: str) -> str:
        """Return what to do if the file cannot be downloaded to ``path``."""
        size = f"{self.size:,} bytes, " if self.size else ""
        return f"fetch this file by hand ({size}SHA-256 {sha256}); save it as {path}, or name it in model.kinetics"


class Backbone(ABC):
    """A network that makes feature maps.

    Attributes:
        name: The name in ``ensemble.json`` and recipes.
        kinetics: The published weights. None if there are none.
        kinetics_package: A Python package that carries such weights. None if there is none.
        he_normal: Whether convolutions start from He-normal weights (He et al. 2015, over the outputs) instead of
            PyTorch's own.
        zero_norms: The end of the names of those BatchNorms whose scale starts at zero, so that a residual block starts
            as its shortcut. None for no such start.
    """

    name: ClassVar[str]
    kinetics: ClassVar[KineticsFile | None] = None
    kinetics_package: ClassVar[KineticsFile | None] = None
    he_normal: ClassVar[bool] = False
    zero_norms: ClassVar[str | None] = None

    @abstractmethod
    def feature_maps(self, layers: Layers[Value], x: Value) -> Iterable[Value]:
        """Return five feature maps of the input (N, 3, D, H, W), from fine to coarse.

        A generator computes no more than it is asked for. Only a convolution may take the input itself.
        """

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of channels of the feature maps."""
        return tuple(self.feature_maps(ChannelCounts(), INPUT_CHANNELS))

    @property
    def fine_stages(self) -> frozenset[str]:
        """The names of the layers that the maps of pooling "centre" are made by."""
        maps = [*self.feature_maps(LayerNames(), frozenset())]
        return frozenset().union(*(maps[k] for k in CENTRE_MAPS))


def centre_of(sides: Sequence[int], patch_sides: float, parts: int) -> tuple[slice, ...]:
    """Return the central part, along each axis, of a whole patch's feature map.

    Args:
        sides: The sides of a feature map.
        patch_sides: The share of a whole patch, along each axis, that the map was made from.
        parts: The side of a whole patch over that of the part: 4 for the central 12.5 mm. All of the map if it was made
            from less.
    """
    wanted = [min(side, round(side / patch_sides) // parts) for side in sides]
    return tuple(slice((side - part) // 2, (side + part) // 2) for side, part in zip(sides, wanted, strict=True))
