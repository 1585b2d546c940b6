"""Import of public checkpoints: the LUNA25 3D baseline's and MClab's, all of them Inception-I3D.

They differ in their classifier and their input:

- The baseline's have names without a prefix. Their classifier is the one-class convolution ``conv3d_0c_1x1`` after
  2×2×2 average pooling of stride 1, averaged over its outputs. Such a convolution of means is a linear layer of the
  mean of means, and is stored as one. The input is the 64×64×64 patch as it is.
- MClab's single-task ones have names without a prefix and the linear layer ``fc``. The patch is upscaled to 64×128×128.
- MClab's multi-task ones have ``backbone.…``, ``classifier_head.2.…`` and, as saved by its training, ``aux_model.…``.
  The patch is upscaled. The backbone still has an ``fc`` that nothing uses.

MClab's may also have the 400-class Kinetics classifier ``conv3d_0c_1x1``, which nothing uses either.

Source: github.com/DIAGNijmegen/luna25-baseline-public and github.com/dobe0715/LUNA25_MClab, models/model_3d.py.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.checkpoints import read_tensors
from nodulemc.models.decoder import published_widths
from nodulemc.models.tensor_shapes import BACKBONE_PREFIX, DECODER_PREFIX, check_names, tensor_shapes
from nodulemc.util.progress import QUIET_S, progress

_NESTS = ("state_dict", "model_state_dict", "model")
_HEAD = "classifier_head.2."
_CONVOLUTION, _LINEAR = "conv3d_0c_1x1.", "fc."
_BASELINE = Architecture("inception_i3d", pooling="windows_2x2x2")
_SINGLE_TASK = Architecture("inception_i3d")
_MULTI_TASK = Architecture("inception_i3d", decoder_widths=published_widths(BACKBONES["inception_i3d"].channels))


def import_reference(
    checkpoints: Sequence[str | Path], folder: str | Path, *, keep_decoder: bool = False
) -> EnsembleManifest:
    """Turn checkpoints into an ensemble folder, one equally weighted member each, in fp32.

    Args:
        checkpoints: Files of the baseline or of MClab, which may be mixed, in voting order.
        folder: The ensemble folder to write.
        keep_decoder: Keep the segmentation decoder of MClab's multi-task networks, for masks.

    Raises:
        EnsembleError: a file is no such checkpoint, does not fill the network exactly, or not with finite numbers,
            or there is no decoder to keep.
        FileError: a file cannot be read, or the folder not be written.
    """
    read = progress(checkpoints, len(checkpoints), "reading checkpoints", quiet_s=QUIET_S)
    members = [
        _member(path, f"seed_{position}", keep_decoder=keep_decoder) for position, path in enumerate(read, start=1)
    ]
    names = ", ".join(Path(path).name for path in checkpoints)
    if keep_decoder and not any(member.architecture.decoder_widths for member in members):
        raise EnsembleError("no decoder to keep", names, "import without --keep-decoder")
    return write_ensemble(folder, members, trained_on=f"imported from {names}", licence=None)


def _member(path: str | Path, name: str, *, keep_decoder: bool) -> MemberWeights:
    architecture, tensors = reference_network(path, keep_decoder=keep_decoder)
    expected = tensor_shapes(architecture, with_decoder=architecture.decoder_widths is not None)
    # Before anything is made of them: a tensor of another shape may be one number that is said to fill terabytes.
    tensors = check_names(tensors, expected, path)
    return MemberWeights(name, architecture, tensors, upscales=architecture != _BASELINE, source=path)


def reference_network(path: str | Path, *, keep_decoder: bool = False) -> tuple[Architecture, dict[str, Tensor]]:
    """Return a public checkpoint's architecture, and its used tensors under this package's names.

    Raises:
        EnsembleError: the file is not a checkpoint, or holds two classifiers.
    """
    tensors = read_tensors(path, _NESTS)
    if not any(name.startswith(BACKBONE_PREFIX) for name in tensors):
        return _without_prefix(tensors, path)
    unused = (BACKBONE_PREFIX + _LINEAR, BACKBONE_PREFIX + _CONVOLUTION, *(() if keep_decoder else (DECODER_PREFIX,)))
    used = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    return _MULTI_TASK if keep_decoder else _SINGLE_TASK, used


def _without_prefix(tensors: dict[str, Tensor], path: str | Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Do the same for a single-task network, whose classifier shows its kind."""
    weight = tensors.get(f"{_CONVOLUTION}conv3d.weight")
    if weight is None or weight.shape[:1] != (1,):
        return _SINGLE_TASK, _renamed(tensors, head=_LINEAR, unused=_CONVOLUTION)
    if f"{_LINEAR}weight" in tensors:
        raise EnsembleError("two classifiers, fc and conv3d_0c_1x1", path, "keep the one that it was trained with")
    linear = weight.flatten(1) if weight.shape[2:] == (1, 1, 1) else weight
    tensors = tensors | {f"{_CONVOLUTION}conv3d.weight": linear}
    return _BASELINE, _renamed(tensors, head=f"{_CONVOLUTION}conv3d.", unused=_LINEAR)


def _renamed(tensors: dict[str, Tensor], *, head: str, unused: str) -> dict[str, Tensor]:
    return {
        _HEAD + name.removeprefix(head) if name.startswith(head) else BACKBONE_PREFIX + name: value
        for name, value in tensors.items()
        if not name.startswith(unused)
    }
