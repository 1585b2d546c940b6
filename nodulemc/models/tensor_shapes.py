"""Names and shapes of the tensors that fill a network. Needs no torch."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.backbone import INPUT_CHANNELS, ChannelCounts, Triple, Window
from nodulemc.util.text import counted

Shapes = dict[str, tuple[int, ...]]
# BatchNorm counts its steps. Inference and Adam do not need the count.
COUNTER = "num_batches_tracked"
BACKBONE_PREFIX = "backbone."
DECODER_PREFIX = "aux_model."
ATTRIBUTE_HEAD = "attribute_head"
_ATTRIBUTE_WEIGHT = f"{ATTRIBUTE_HEAD}.weight"
VARIANCE = "running_var"


def tensor_shapes(architecture: Architecture, *, with_decoder: bool) -> Shapes:
    """Return names and shapes of a multi-task network's parameters and buffers, without BatchNorm's counters."""
    channels = BACKBONES[architecture.backbone].channels
    shapes = {BACKBONE_PREFIX + name: shape for name, shape in backbone_shapes(architecture.backbone).items()}
    widths = (architecture.head_features, *architecture.head_widths, 1)
    for k, (before, after) in enumerate(pairwise(widths), start=1):
        shapes |= dict(_affine(f"classifier_head.{2 * k}", (after, before)))
    if architecture.attributes:
        shapes |= dict(_affine(ATTRIBUTE_HEAD, (len(architecture.attributes), architecture.attribute_features)))
    if with_decoder and architecture.decoder_widths is not None:
        shapes |= {DECODER_PREFIX + name: shape for name, shape in _decoder(channels, architecture.decoder_widths)}
    return shapes


def backbone_shapes(backbone: str) -> Shapes:
    """Return the same for a backbone alone."""
    table = _Table()
    list(BACKBONES[backbone].feature_maps(table, INPUT_CHANNELS))
    return table.shapes


class _Table(ChannelCounts):
    """Layers that record their tensors' names and shapes."""

    def __init__(self) -> None:
        self.shapes: Shapes = {}

    def conv_bn(self, x: int, conv: str, norm: str, channels: int, window: Window) -> int:
        self.shapes |= dict(_convolution_and_norm(conv, norm, x, channels, window.kernel))
        return channels


def check_names(tensors: Mapping[str, Any], expected: Shapes, path: str | Path) -> dict[str, Any]:
    """Check that tensors have exactly the expected names and shapes.

    Args:
        tensors: Anything with a ``shape``, by name.
        expected: The result of ``tensor_shapes``.
        path: The tensors' file, for messages.

    Returns:
        The tensors without BatchNorm's counters.

    Raises:
        EnsembleError: a tensor is missing, unexpected or of another shape.
    """
    tensors = {name: value for name, value in tensors.items() if not name.endswith(COUNTER)}
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    misshapen = [name for name in expected if name in tensors and tuple(tensors[name].shape) != expected[name]]
    for kind, names in (("missing", missing), ("left over", left_over), ("of another shape", misshapen)):
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            remedy = "give a checkpoint of this architecture"
            if names == [_ATTRIBUTE_WEIGHT]:  # it once read the pooled features alone
                remedy = "it is an older version's; train the head again from an ensemble without one"
            raise EnsembleError(f"{counted(len(names), 'tensor')} {kind} ({shown})", path, remedy)
    return tensors


Named = Iterator[tuple[str, tuple[int, ...]]]


def _decoder(channels: tuple[int, ...], widths: tuple[int, ...]) -> Named:
    *finer, coarsest = channels
    for stage, (before, after) in enumerate(pairwise((coarsest, *widths)), start=1):
        yield from _unit(f"block{stage}", before, after, 3)
    for stage, (before, width) in enumerate(zip(reversed(finer), widths, strict=False), start=1):
        if before != width:
            yield from _affine(f"project_{stage}", (width, before, 1, 1, 1))
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
