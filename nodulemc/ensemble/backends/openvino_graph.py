"""The networks as OpenVINO graphs: patches in, pooled features and masks out, with all constants folded into weights.

BatchNorm becomes part of the convolution before it. The network's input is a patch in three equal channels, mostly
upscaled by nearest neighbour. So the first convolution's weights are summed over the channels and, if its stride allows
it, over the copies of each voxel. The graph then takes the patch itself.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ensemble.backends.openvino_runtime import openvino, ops
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.backbone import (
    ATTRIBUTE_MAP,
    CENTRE_MAPS,
    CENTRE_PARTS,
    EPSILON,
    Layers,
    Window,
    centre_of,
    centred,
    same,
    triple,
)
from nodulemc.models.tensor_shapes import BACKBONE_PREFIX, DECODER_PREFIX
from nodulemc.patch import SIZE, UPSCALED

Node: TypeAlias = openvino.Output
_UPSCALING = UPSCALED[2] // SIZE
_AXES = np.array([2, 3, 4])  # D, H and W


def network_graph(
    architecture: Architecture, tensors: Mapping[str, Array], *, upscaled: bool = True, masks: bool = False
) -> openvino.Model:
    """Return a backbone with its coarsest feature map pooled and, for masks, its decoder.

    The decoder is that of ``nodulemc.models.decoder``.

    Args:
        architecture: The network's architecture.
        tensors: fp16 or fp32, by the multi-task network's names (see ``nodulemc.models.tensor_shapes``).
        upscaled: Whether the network's input is the upscaled patch. Otherwise it is the patch itself.
        masks: Whether the decoder is wanted. Its tensors are needed then, too.

    Returns:
        A model that maps one patch (1, 1, 64, 64, 64), values 0…1, to the features that its heads read (1, F) and, for
            masks, mask logits (1, 1, 64, 64, 64). The malignancy head reads the first features, those that all heads
            read.
    """
    patch = ops.parameter([1, 1, SIZE, SIZE, SIZE], np.float32)
    x = patch.output(0)
    layers = _BackboneLayers(tensors, x, _UPSCALING if upscaled else 1)
    wanted = None if masks else architecture.maps_read
    maps = [*islice(BACKBONES[architecture.backbone].feature_maps(layers, x), wanted)]
    decoded = [_decoder(_Layers(tensors, DECODER_PREFIX), maps, architecture.decoder_widths or ())] if masks else []
    features = _pooled(maps, architecture.pooling)
    if architecture.attributes and architecture.attribute_features > architecture.head_features:
        features.append(_maxima(_centre(maps[ATTRIBUTE_MAP], CENTRE_PARTS[0])))
    return openvino.Model([layers.concatenate(features), *decoded], [patch])


# The functions of ``nodulemc.models.pooling``.


def _pooled(maps: Sequence[Node], pooling: str) -> list[Node]:
    if pooling == "centre":
        boxes = [_centre(maps[k], parts) for k in CENTRE_MAPS for parts in CENTRE_PARTS]
        return [value for box in boxes for value in (_means(box), _maxima(box))]
    coarsest = maps[-1]
    if pooling == "windows_2x2x2":
        none = [0, 0, 0]
        coarsest = ops.avg_pool(coarsest, [1, 1, 1], none, none, [2, 2, 2], exclude_pad=True).output(0)
    return [_means(coarsest)]


def _centre(x: Node, parts: int) -> Node:
    centre = centre_of([*x.shape][2:], 1, parts)
    bounds = [np.array([getattr(side, end) for side in centre]) for end in ("start", "stop")]
    return ops.slice(x, *map(ops.constant, (*bounds, np.ones(3, np.int64), _AXES))).output(0)


def _means(x: Node) -> Node:
    return ops.reduce_mean(x, ops.constant(_AXES), False).output(0)


def _maxima(x: Node) -> Node:
    return ops.reduce_max(x, ops.constant(_AXES), False).output(0)


def _decoder(layers: "_Layers", maps: Sequence[Node], widths: Sequence[int]) -> Node:
    *finer, x = maps
    for stage, (finer_map, width) in enumerate(zip(reversed(finer), widths, strict=False), start=1):
        x = _resized(layers.conv_bn_relu(x, f"block{stage}", width, same(3)), [*finer_map.shape][2:])
        x = layers.add(x, layers.projection(finer_map, f"project_{stage}"))
    x = layers.conv_bn_relu(x, f"block{len(widths)}", widths[-1], same(3))
    # A convolution of one voxel and an interpolation may swap places, and in this order there is less to compute.
    return _resized(layers.projection(x, "last_layer"), [SIZE] * 3)


class _Layers(Layers[Node]):
    """Layers made of those tensors of a network whose names start with a prefix."""

    def __init__(self, tensors: Mapping[str, Array], prefix: str) -> None:
        self._tensors = tensors
        self._prefix = prefix

    def conv_bn(self, x: Node, conv: str, norm: str, channels: int, window: Window) -> Node:
        return _convolution(x, *self._folded(conv, norm), window)

    def relu(self, x: Node) -> Node:
        return ops.relu(x).output(0)

    def max_pool(self, x: Node, window: Window) -> Node:
        # Padding is never the largest, as every window has values of 0 or more.
        kernel, stride, near, far = map(list, window)
        return ops.max_pool(x, stride, [1, 1, 1], near, far, kernel, "floor").output(0)

    def add(self, a: Node, b: Node) -> Node:
        return ops.add(a, b).output(0)

    def concatenate(self, values: Sequence[Node]) -> Node:
        return ops.concat([*values], 1).output(0)

    def projection(self, x: Node, name: str) -> Node:
        """Return a convolution of one voxel, with a bias; the input itself if there is none of this name."""
        if f"{self._prefix}{name}.weight" not in self._tensors:
            return x
        return _convolution(x, self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias"), centred(1))

    def _folded(self, conv: str, norm: str) -> tuple[Array, Array]:
        """Return weight and bias of a convolution with its BatchNorm."""
        gain, bias, mean, variance = (
            self._tensor(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + np.float32(EPSILON))
        stored = self._tensors[f"{self._prefix}{conv}.weight"]
        weight = np.multiply(stored, scale[:, None, None, None, None], dtype=np.float32)
        return weight, bias - mean * scale

    def _tensor(self, name: str) -> Array:
        return self._tensors[self._prefix + name].astype(np.float32)


class _BackboneLayers(_Layers):
    """Layers of a backbone whose first convolution takes the patch as the network's input."""

    def __init__(self, tensors: Mapping[str, Array], patch: Node, upscaling: int) -> None:
        super().__init__(tensors, BACKBONE_PREFIX)
        self._patch = patch
        self._upscaling = upscaling

    def conv_bn(self, x: Node, conv: str, norm: str, channels: int, window: Window) -> Node:
        if x is not self._patch:
            return super().conv_bn(x, conv, norm, channels, window)
        weight, bias = self._folded(conv, norm)
        weight = weight.sum(axis=1, keepdims=True)
        if any(step % self._upscaling for step in window.stride[1:]):
            x = _upscaled(x, self._upscaling)
        else:
            weight, window = _absorbed(weight, window, self._upscaling)
        return _convolution(x, weight, bias, window)


def _absorbed(weight: Array, window: Window, size: int) -> tuple[Array, Window]:
    """Return a convolution's weight (channels, 1, D, H, W) and window for patches not yet upscaled in plane."""
    kernel, stride, near, far = map(np.array, window)
    # So many of the kernel's voxels see the same voxel. The kernel gets zeros where such a group would be cut.
    before = -near[1:] % size
    after = -(kernel[1:] + before) % size
    weight = np.pad(weight, ((0, 0),) * 3 + (*zip(before, after, strict=True),))
    out, _, depth, height, width = weight.shape
    weight = weight.reshape(out, 1, depth, height // size, size, width // size, size).sum(axis=(4, 6))
    near[1:] = (near[1:] + before) // size
    far[1:] = (far[1:] + after) // size
    stride[1:] //= size
    return weight, Window(*(triple(map(int, sides)) for sides in (weight.shape[2:], stride, near, far)))


def _convolution(x: Node, weight: Array, bias: Array, window: Window) -> Node:
    stride, near, far = map(list, window[1:])
    convolved = ops.convolution(x, ops.constant(weight, shared_memory=True), stride, near, far, [1, 1, 1])
    return ops.add(convolved, ops.constant(bias.reshape(1, -1, 1, 1, 1))).output(0)


def _resized(x: Node, size: Sequence[int]) -> Node:
    """Return a trilinear interpolation to a size; the outer faces of the voxels stay in place."""
    axes, sizes = (ops.constant(np.array(values, np.int64)) for values in ([2, 3, 4], size))
    return ops.interpolate(x, sizes, "linear_onnx", "sizes", axes=axes).output(0)


def _upscaled(x: Node, size: int) -> Node:
    """Return the nearest neighbours in plane."""
    axes, sizes = (ops.constant(np.array(values, np.int64)) for values in ([3, 4], [SIZE * size] * 2))
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return ops.interpolate(x, sizes, "nearest", "sizes", axes=axes, **modes).output(0)
