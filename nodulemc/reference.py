"""Import of public checkpoints: the LUNA25 3D baseline's and MClab's, both Inception-I3D.

Baseline: the network's names without a prefix, the head in ``fc``. MClab: ``backbone.…``,
``classifier_head.2.…`` and, as saved by its training, ``aux_model.…``; its backbone still carries the
baseline's unused ``fc``. Both may carry the 400-class Kinetics classifier ``conv3d_0c_1x1``, which neither
uses. Earlier public copies of the baseline have no ``fc``: they classify by a one-class ``conv3d_0c_1x1``
after overlapping 2×2×2 pooling of a 64×64×64 input. That is another function of another input, so it is refused.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from nodulemc.ensemble_writer import SeedWeights, write_ensemble
from nodulemc.errors import EnsembleError
from nodulemc.manifest import Manifest
from nodulemc.models.architecture import Architecture
from nodulemc.models.checkpoints import read_tensors
from nodulemc.models.decoder import published_widths
from nodulemc.models.layouts import TAP_CHANNELS
from nodulemc.models.tensor_shapes import check_names, tensor_shapes
from nodulemc.progress import QUIET_S, progress

_NESTS = ("state_dict", "model_state_dict", "model")
_BACKBONE, _DECODER = "backbone.", "aux_model."
_CONVOLUTION_HEAD = "backbone.conv3d_0c_1x1.conv3d.weight"
_UNUSED = ("backbone.fc.", "backbone.conv3d_0c_1x1.")


def import_reference(checkpoints: Sequence[str | Path], folder: str | Path, *, keep_decoder: bool = False) -> Manifest:
    """Turn checkpoints into an ensemble folder, one equally weighted member each, in fp32.

    Args:
        checkpoints: baseline or MClab files, in voting order.
        folder: the ensemble folder to write.
        keep_decoder: keep MClab's segmentation decoder, for masks.

    Raises:
        EnsembleError: a file is no such checkpoint, does not fill the network exactly, or not with finite numbers,
            has no decoder to keep, or the folder cannot be written.
    """
    seeds = []
    read = progress(checkpoints, len(checkpoints), "reading checkpoints", quiet_s=QUIET_S)
    for position, path in enumerate(read, start=1):
        tensors = reference_tensors(path, keep_decoder=keep_decoder)
        widths = published_widths(TAP_CHANNELS["inception_i3d"]) if keep_decoder else None
        architecture = Architecture("inception_i3d", decoder_widths=widths)
        expected = tensor_shapes(architecture, with_decoder=keep_decoder)
        # Before anything is made of them: a tensor of another shape may be one number that is said to fill terabytes.
        tensors = check_names(tensors, expected, path)
        seeds.append(SeedWeights(f"seed_{position}", architecture, tensors, source=path))
    names = ", ".join(Path(path).name for path in checkpoints)
    return write_ensemble(folder, seeds, trained_on=f"imported from {names}", licence=None)


def reference_tensors(path: str | Path, *, keep_decoder: bool = False) -> dict[str, Tensor]:
    """A public checkpoint's tensors under this package's names, without those its inference does not use.

    Raises:
        EnsembleError: the file is not a checkpoint, or its classifier is the early baseline's convolution.
    """
    tensors = read_tensors(path, _NESTS)
    if not any(name.startswith(_BACKBONE) for name in tensors):
        tensors = {
            name.replace("fc.", "classifier_head.2.", 1) if name.startswith("fc.") else _BACKBONE + name: value
            for name, value in tensors.items()
        }
    if _CONVOLUTION_HEAD in tensors and tensors[_CONVOLUTION_HEAD].shape[0] == 1:
        raise EnsembleError(
            "the classifier is conv3d_0c_1x1, for a 64×64×64 input",
            path,
            "give a checkpoint with the classifier fc or classifier_head.2, trained on 64×128×128",
        )
    unused = _UNUSED if keep_decoder else (*_UNUSED, _DECODER)
    return {name: value for name, value in tensors.items() if not name.startswith(unused)}
