"""How the two backbones are put together: widths, kernels and strides. Needs no torch."""

from collections.abc import Sequence
from typing import NamedTuple

Triple = tuple[int, int, int]
EPSILON = 1e-5  # of every BatchNorm


def same_padding(kernel: Triple, stride: Triple) -> tuple[Triple, Triple]:
    """TensorFlow's "SAME" padding for input sizes that the stride divides: voxels before and after, per axis.

    The padding of an axis is kernel − stride in all; where that is odd, the extra voxel is at the far side.
    """
    depth, height, width = (max(k - s, 0) for k, s in zip(kernel, stride, strict=True))
    near = (depth // 2, height // 2, width // 2)
    return near, (depth - near[0], height - near[1], width - near[2])


class Pool(NamedTuple):
    """A max-pool."""

    kernel: Triple
    stride: Triple


class Inception(NamedTuple):
    """An inception block: input width; widths of its branches' convolutions: 1; 1 then 3; 1 then 3; pool then 1."""

    in_channels: int
    widths: tuple[int, int, int, int, int, int]


# Inception-I3D: Carreira & Zisserman 2017, arXiv:1705.07750, figure 3.
INCEPTION_UNITS = {  # name: in, out, kernel, stride
    "conv3d_1a_7x7": (3, 64, 7, 2),
    "conv3d_2b_1x1": (64, 64, 1, 1),
    "conv3d_2c_3x3": (64, 192, 3, 1),
}
INCEPTION_POOLS = {
    "pool_2a": Pool((1, 3, 3), (1, 2, 2)),
    "pool_3a": Pool((1, 3, 3), (1, 2, 2)),
    "pool_4a": Pool((3, 3, 3), (2, 2, 2)),
    "pool_5a": Pool((2, 2, 2), (2, 2, 2)),
}
INCEPTION_BRANCH_POOL = Pool((3, 3, 3), (1, 1, 1))
INCEPTION_BLOCKS = {
    "mixed_3b": Inception(192, (64, 96, 128, 16, 32, 32)),
    "mixed_3c": Inception(256, (128, 128, 192, 32, 96, 64)),
    "mixed_4b": Inception(480, (192, 96, 208, 16, 48, 64)),
    "mixed_4c": Inception(512, (160, 112, 224, 24, 64, 64)),
    "mixed_4d": Inception(512, (128, 128, 256, 24, 64, 64)),
    "mixed_4e": Inception(512, (112, 144, 288, 32, 64, 64)),
    "mixed_4f": Inception(528, (256, 160, 320, 32, 128, 128)),
    "mixed_5b": Inception(832, (256, 160, 320, 32, 128, 128)),
    "mixed_5c": Inception(832, (384, 192, 384, 48, 128, 128)),
}
INCEPTION_ORDER = (
    "conv3d_1a_7x7", "pool_2a", "conv3d_2b_1x1", "conv3d_2c_3x3", "pool_3a", "mixed_3b", "mixed_3c", "pool_4a",
    "mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f", "pool_5a", "mixed_5b", "mixed_5c",
)  # fmt: skip


class Stage(NamedTuple):
    """A stage of bottleneck blocks.

    Attributes:
        position: its place among pytorchvideo's ``blocks``.
        in_channels, inner, out: widths before, within and after its blocks.
        depths: temporal kernel of each block's first convolution.
        stride: in plane, of its first block.
    """

    position: int
    in_channels: int
    inner: int
    out: int
    depths: tuple[int, ...]
    stride: int


# I3D-R50: pytorchvideo.models.hub.i3d_r50, version 0.1.5.
RESNET_STEM = (3, 64, (5, 7, 7), (1, 2, 2))  # in, out, kernel, stride
RESNET_STEM_POOL = Pool((1, 3, 3), (1, 2, 2))
RESNET_POOL = Pool((2, 1, 1), (2, 1, 1))  # after the first stage
RESNET_STAGES = (
    Stage(1, 64, 64, 256, (3, 3, 3), 1),
    Stage(3, 256, 128, 512, (3, 1, 3, 1), 2),
    Stage(4, 512, 256, 1024, (3, 1, 3, 1, 3, 1), 2),
    Stage(5, 1024, 512, 2048, (1, 3, 1), 2),
)

# The five taps, fine to coarse, and their channels.
INCEPTION_TAPS = ("conv3d_1a_7x7", "conv3d_2c_3x3", "mixed_3c", "mixed_4f", "mixed_5c")
TAP_CHANNELS = {"inception_i3d": (64, 192, 480, 832, 1024), "i3d_r50": (64, 256, 512, 1024, 2048)}


# Attributes are told from the pooled last tap and this one's maxima over the centre, 12.5 mm: small nodules' density
# and texture are lost on the way to the last tap.
CENTRE_TAP = 1


def centre_of(sides: Sequence[int], patch_sides: float = 1) -> tuple[slice, ...]:
    """The central quarter, along each axis, of a whole patch's feature map.

    Args:
        sides: of a feature map.
        patch_sides: how much of a whole patch along each axis it was made of.
    """
    quarters = [round(side / patch_sides) // 4 for side in sides]
    return tuple(slice((side - part) // 2, (side + part) // 2) for side, part in zip(sides, quarters, strict=True))


def attribute_features(backbone: str) -> int:
    """How many features attributes are told from."""
    return TAP_CHANNELS[backbone][-1] + TAP_CHANNELS[backbone][CENTRE_TAP]
