"""Names and shapes of the tensors that fill a network. Needs no torch."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.layouts import (
    INCEPTION_BLOCKS,
    INCEPTION_UNITS,
    RESNET_STAGES,
    RESNET_STEM,
    TAP_CHANNELS,
    Triple,
    attribute_features,
)

Shapes = dict[str, tuple[int, ...]]
# BatchNorm counts its steps; inference and Adam do without.
COUNTER = "num_batches_tracked"
DECODER_PREFIX = "aux_model."
ATTRIBUTE_HEAD = "attribute_head"
VARIANCE = "running_var"


def tensor_shapes(architecture: Architecture, *, with_decoder: bool) -> Shapes:
    """Names and shapes of a multi-task network's parameters and buffers, BatchNorm's counters left out."""
    taps = TAP_CHANNELS[architecture.backbone]
    shapes = {f"backbone.{name}": shape for name, shape in backbone_shapes(architecture.backbone).items()}
    widths = (taps[-1], *architecture.head_widths, 1)
    for k, (before, after) in enumerate(pairwise(widths), start=1):
        shapes |= dict(_affine(f"classifier_head.{2 * k}", (after, before)))
    if architecture.attributes:
        features = attribute_features(architecture.backbone)
        shapes |= dict(_affine(ATTRIBUTE_HEAD, (len(architecture.attributes), features)))
    if with_decoder and architecture.decoder_widths is not None:
        shapes |= {DECODER_PREFIX + name: shape for name, shape in _decoder(taps, architecture.decoder_widths)}
    return shapes


def backbone_shapes(backbone: str) -> Shapes:
    """The same of a backbone alone."""
    return dict(_inception() if backbone == "inception_i3d" else _resnet())


def check_names(tensors: Mapping[str, Any], expected: Shapes, path: str | Path) -> dict[str, Any]:
    """Check that tensors have exactly the names and shapes that are expected.

    Args:
        tensors: anything with a ``shape``.
        expected: from ``tensor_shapes``.
        path: where they come from, for messages.

    Returns:
        The tensors without BatchNorm's counters.

    Raises:
        EnsembleError: a tensor is missing, left over or of another shape.
    """
    tensors = {name: value for name, value in tensors.items() if not name.endswith(COUNTER)}
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    misshapen = [name for name in expected if name in tensors and tuple(tensors[name].shape) != expected[name]]
    for kind, names in (("missing", missing), ("left over", left_over), ("of another shape", misshapen)):
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise EnsembleError(
                f"{len(names)} tensors {kind} ({shown})", path, "give a checkpoint of this architecture"
            )
    return tensors


Named = Iterator[tuple[str, tuple[int, ...]]]


def _inception() -> Named:
    for name, (before, after, kernel, _) in INCEPTION_UNITS.items():
        yield from _unit(name, before, after, kernel)
    for name, (before, (w0, w1a, w1b, w2a, w2b, w3)) in INCEPTION_BLOCKS.items():
        yield from _unit(f"{name}.branch_0", before, w0, 1)
        for branch, (inner, outer) in (("branch_1", (w1a, w1b)), ("branch_2", (w2a, w2b))):
            yield from _unit(f"{name}.{branch}.0", before, inner, 1)
            yield from _unit(f"{name}.{branch}.1", inner, outer, 3)
        yield from _unit(f"{name}.branch_3.1", before, w3, 1)


def _resnet() -> Named:
    before, after, kernel, _ = RESNET_STEM
    yield from _convolution_and_norm("blocks.0.conv", "blocks.0.norm", before, after, kernel)
    for stage in RESNET_STAGES:
        before = stage.in_channels
        for k, depth in enumerate(stage.depths):
            block = f"blocks.{stage.position}.res_blocks.{k}"
            if k == 0:
                yield from _convolution_and_norm(
                    f"{block}.branch1_conv", f"{block}.branch1_norm", before, stage.out, (1, 1, 1)
                )
            for letter, inputs, outputs, kernel in (
                ("a", before, stage.inner, (depth, 1, 1)),
                ("b", stage.inner, stage.inner, (1, 3, 3)),
                ("c", stage.inner, stage.out, (1, 1, 1)),
            ):
                convolution, norm = f"{block}.branch2.conv_{letter}", f"{block}.branch2.norm_{letter}"
                yield from _convolution_and_norm(convolution, norm, inputs, outputs, kernel)
            before = stage.out


def _decoder(taps: tuple[int, ...], widths: tuple[int, ...]) -> Named:
    *finer, coarsest = taps
    for stage, (before, after) in enumerate(pairwise((coarsest, *widths)), start=1):
        yield from _unit(f"block{stage}", before, after, 3)
    for stage, (tap, width) in enumerate(zip(reversed(finer), widths, strict=False), start=1):
        if tap != width:
            yield from _affine(f"project_{stage}", (width, tap, 1, 1, 1))
    yield from _affine("last_layer", (1, widths[-1], 1, 1, 1))


def _unit(name: str, before: int, after: int, kernel: int) -> Named:
    return _convolution_and_norm(f"{name}.conv3d", f"{name}.batch3d", before, after, (kernel,) * 3)


def _convolution_and_norm(convolution: str, norm: str, before: int, after: int, kernel: Triple) -> Named:
    yield f"{convolution}.weight", (after, before, *kernel)
    for part in ("weight", "bias", "running_mean", VARIANCE):
        yield f"{norm}.{part}", (after,)


def _affine(name: str, shape: tuple[int, ...]) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
