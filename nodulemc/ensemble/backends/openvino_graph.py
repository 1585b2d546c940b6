"""The networks as OpenVINO graphs: patches in, pooled features and masks out, everything constant folded into weights.

BatchNorm becomes part of the convolution before it. The network's input is a patch in three equal channels, mostly
upscaled by nearest neighbour, so the first convolution's weights are summed over the channels and over the copies of
each voxel, and the graph takes the patch itself.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ensemble.backends.openvino_runtime import openvino, ops
from nodulemc.models.architecture import Architecture
from nodulemc.models.layouts import (
    CENTRE_TAP,
    EPSILON,
    INCEPTION_BLOCKS,
    INCEPTION_BRANCH_POOL,
    INCEPTION_ORDER,
    INCEPTION_POOLS,
    INCEPTION_TAPS,
    INCEPTION_UNITS,
    RESNET_POOL,
    RESNET_STAGES,
    RESNET_STEM,
    RESNET_STEM_POOL,
    Pool,
    Triple,
    centre_of,
    same_padding,
)
from nodulemc.models.tensor_shapes import DECODER_PREFIX
from nodulemc.patch import SIZE, UPSCALED

Node: TypeAlias = openvino.Output
Padding = tuple[Sequence[int], Sequence[int]]
_UPSCALING = UPSCALED[2] // SIZE
_UNIT_STRIDE = (1, 1, 1)


def network_graph(
    architecture: Architecture, tensors: Mapping[str, Array], *, upscaled: bool = True, masks: bool = False
) -> openvino.Model:
    """A backbone with the pooling of its last tap and, for masks, its decoder (see ``nodulemc.models.decoder``).

    Args:
        architecture: the network's.
        tensors: fp16 or fp32, by the multi-task network's names (see ``nodulemc.models.tensor_shapes``).
        upscaled: whether the network is fed the upscaled patch; else the patch as it is.
        masks: whether the decoder is wanted; its tensors are then needed, too.

    Returns:
        A model that maps one patch (1, 1, 64, 64, 64), values 0…1, to the features that its heads read (1, F) and, for
        masks, mask logits (1, 1, 64, 64, 64). The malignancy head reads the first F, channels of the last tap.
    """
    layers = _Layers(tensors, _UPSCALING if upscaled else 1)
    patch = ops.parameter([1, 1, SIZE, SIZE, SIZE], np.float32)
    build = _inception if architecture.backbone == "inception_i3d" else _resnet
    taps = build(layers, patch.output(0))
    decoded = [_decoder(layers, taps)] if masks else []
    features = _pooled(taps[-1], architecture.pooling)
    if architecture.attributes:
        features = ops.concat([features, _central_maxima(taps[CENTRE_TAP])], 1).output(0)
    return openvino.Model([features, *decoded], [patch])


def _pooled(tap: Node, pooling: str) -> Node:
    if pooling == "windows_2x2x2":
        none = [0, 0, 0]
        tap = ops.avg_pool(tap, [1, 1, 1], none, none, [2, 2, 2], exclude_pad=True).output(0)
    return ops.reduce_mean(tap, ops.constant(np.array([2, 3, 4])), False).output(0)


def _central_maxima(tap: Node) -> Node:
    centre = centre_of([*tap.shape][2:])
    axes = np.array([2, 3, 4])
    bounds = [np.array([getattr(side, end) for side in centre]) for end in ("start", "stop")]
    cut = ops.slice(tap, *map(ops.constant, (*bounds, np.ones(3, np.int64), axes))).output(0)
    return ops.reduce_max(cut, ops.constant(axes), False).output(0)


def _decoder(layers: "_Layers", taps: Sequence[Node]) -> Node:
    *finer, x = taps
    for stage, tap in enumerate(reversed(finer), start=1):
        x = _resized(layers.unit(x, f"{DECODER_PREFIX}block{stage}", 3), [*tap.shape][2:])
        x = ops.add(x, layers.projection(tap, f"{DECODER_PREFIX}project_{stage}")).output(0)
    x = layers.unit(x, f"{DECODER_PREFIX}block{len(finer) + 1}", 3)
    # A convolution of one voxel and an interpolation may change places, and this way round there is less to do.
    return _resized(layers.projection(x, f"{DECODER_PREFIX}last_layer"), [SIZE] * 3)


class _Layers:
    """Layers made of a network's tensors."""

    def __init__(self, tensors: Mapping[str, Array], upscaling: int) -> None:
        self._tensors = tensors
        self._upscaling = upscaling

    def unit(self, x: Node, name: str, kernel: int, stride: int = 1) -> Node:
        """Inception's ConvUnit."""
        padding = same_padding((kernel,) * 3, (stride,) * 3)
        return ops.relu(self.convolution(x, f"{name}.conv3d", f"{name}.batch3d", (stride,) * 3, padding)).output(0)

    def convolution(self, x: Node, name: str, norm: str, stride: Triple, padding: Padding) -> Node:
        """A convolution and its BatchNorm."""
        return _convolution(x, *self._folded(name, norm), stride, padding)

    def projection(self, x: Node, name: str) -> Node:
        """A convolution of one voxel, with a bias; the input itself where there is none of this name."""
        if f"{name}.weight" not in self._tensors:
            return x
        weight, bias = (self._tensors[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
        return _convolution(x, weight, bias, _UNIT_STRIDE, _centred((1, 1, 1)))

    def stem(self, x: Node, name: str, norm: str, stride: Triple, padding: Padding) -> Node:
        """The first convolution, of what the upscaled patch would be, and its ReLU."""
        weight, bias = self._folded(name, norm)
        near, far = np.array(padding)
        # In plane, that many taps see the same voxel: the kernel gets zeros where such a group would be cut.
        size = self._upscaling
        before = near[1] % size
        after = -(weight.shape[-1] + before) % size
        weight = np.pad(weight.sum(axis=1, keepdims=True), ((0, 0),) * 3 + ((before, after),) * 2)
        out, _, depth, height, width = weight.shape
        weight = weight.reshape(out, 1, depth, height // size, size, width // size, size).sum(axis=(4, 6))
        near[1:] = (near[1:] + before) // size
        far[1:] = (far[1:] + after) // size
        steps = (stride[0], stride[1] // size, stride[2] // size)
        return ops.relu(_convolution(x, weight, bias, steps, (near.tolist(), far.tolist()))).output(0)

    def _folded(self, name: str, norm: str) -> tuple[Array, Array]:
        gain, bias, mean, variance = (
            self._tensors[f"{norm}.{part}"].astype(np.float32)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + np.float32(EPSILON))
        weight = np.multiply(self._tensors[f"{name}.weight"], scale[:, None, None, None, None], dtype=np.float32)
        return weight, bias - mean * scale


def _convolution(x: Node, weight: Array, bias: Array, stride: Sequence[int], padding: Padding) -> Node:
    near, far = padding
    convolved = ops.convolution(
        x, ops.constant(weight, shared_memory=True), list(stride), list(near), list(far), [1, 1, 1]
    )
    return ops.add(convolved, ops.constant(bias.reshape(1, -1, 1, 1, 1))).output(0)


def _pool(x: Node, pool: Pool) -> Node:
    # What is padded is never the largest: there are values of 0 and more in every window.
    near, far = same_padding(*pool)
    return ops.max_pool(x, list(pool.stride), [1, 1, 1], list(near), list(far), list(pool.kernel), "floor").output(0)


def _resized(x: Node, size: Sequence[int]) -> Node:
    """Trilinear interpolation to a size, voxels' outer faces kept."""
    axes, sizes = (ops.constant(np.array(values, np.int64)) for values in ([2, 3, 4], size))
    return ops.interpolate(x, sizes, "linear_onnx", "sizes", axes=axes).output(0)


def _inception(layers: _Layers, x: Node) -> list[Node]:
    taps = []
    for name in INCEPTION_ORDER:
        path = f"backbone.{name}"
        if name in INCEPTION_POOLS:
            x = _pool(x, INCEPTION_POOLS[name])
        elif name in INCEPTION_BLOCKS:
            branches = [
                layers.unit(x, f"{path}.branch_0", 1),
                *(layers.unit(layers.unit(x, f"{path}.branch_{k}.0", 1), f"{path}.branch_{k}.1", 3) for k in (1, 2)),
                layers.unit(_pool(x, INCEPTION_BRANCH_POOL), f"{path}.branch_3.1", 1),
            ]
            x = ops.concat(branches, 1).output(0)
        else:
            _, _, kernel, stride = INCEPTION_UNITS[name]
            if name == INCEPTION_ORDER[0]:
                kernels, strides = (kernel,) * 3, (stride,) * 3
                x = layers.stem(x, f"{path}.conv3d", f"{path}.batch3d", strides, same_padding(kernels, strides))
            else:
                x = layers.unit(x, path, kernel, stride)
        if name in INCEPTION_TAPS:
            taps.append(x)
    return taps


def _resnet(layers: _Layers, x: Node) -> list[Node]:
    _, _, kernel, stride = RESNET_STEM
    x = layers.stem(x, "backbone.blocks.0.conv", "backbone.blocks.0.norm", stride, _centred(kernel))
    near = _centred(RESNET_STEM_POOL.kernel)[0]
    x = ops.max_pool(
        x, list(RESNET_STEM_POOL.stride), [1, 1, 1], near, near, list(RESNET_STEM_POOL.kernel), "floor"
    ).output(0)
    taps = [x]
    for stage in RESNET_STAGES:
        for k, depth in enumerate(stage.depths):
            path = f"backbone.blocks.{stage.position}.res_blocks.{k}"
            stride = (1, stage.stride, stage.stride) if k == 0 else _UNIT_STRIDE
            shortcut = x
            if k == 0:
                names = (f"{path}.branch1_conv", f"{path}.branch1_norm")
                shortcut = layers.convolution(x, *names, stride, _centred((1, 1, 1)))
            y = x
            for letter, kernel, step in (
                ("a", (depth, 1, 1), _UNIT_STRIDE),
                ("b", (1, 3, 3), stride),
                ("c", (1, 1, 1), _UNIT_STRIDE),
            ):
                names = (f"{path}.branch2.conv_{letter}", f"{path}.branch2.norm_{letter}")
                y = layers.convolution(y, *names, step, _centred(kernel))
                y = y if letter == "c" else ops.relu(y).output(0)
            x = ops.relu(ops.add(shortcut, y)).output(0)
        taps.append(x)
        if stage is RESNET_STAGES[0]:
            x = _pool(x, RESNET_POOL)
    return taps


def _centred(kernel: Triple) -> tuple[list[int], list[int]]:
    """The padding of an odd kernel that keeps its centre on the voxel."""
    sides = [k // 2 for k in kernel]
    return sides, sides
