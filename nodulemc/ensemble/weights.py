"""A member's tensors: they are read and checked, and nothing is executed. Needs no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from nodulemc.arrays import Array
from nodulemc.ensemble.manifest import Member, member_bytes
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.tensor_shapes import COUNTER, DECODER_PREFIX, VARIANCE, check_names, tensor_shapes

_TYPES = {"F16": np.float16, "F32": np.float32}


def read_weights(folder: str | Path, member: Member, *, masks: bool = False) -> dict[str, Array]:
    """Return a member's tensors by name, fp16 or fp32 as stored, without BatchNorm's counters; the decoder's for masks.

    Raises:
        FileError: as ``member_bytes``.
        EnsembleError: the file is missing or damaged, as ``parse_weights``, or lacks the decoder that masks need.
    """
    path = Path(folder) / member.file
    if masks and member.architecture.decoder_widths is None:
        raise EnsembleError("the member has no decoder, so it cannot segment", path, "use an ensemble saved with one")
    tensors = parse_weights(member_bytes(folder, member), member.architecture, path)
    return {name: value for name, value in tensors.items() if masks or not name.startswith(DECODER_PREFIX)}


def parse_weights(content: bytes, architecture: Architecture, source: str | Path) -> dict[str, Array]:
    """Return the tensors of a safetensors file, except BatchNorm's counters.

    Args:
        content: The file's bytes.
        architecture: The network that they must fill, including the decoder.
        source: The file's name for messages.

    Raises:
        EnsembleError: They do not fill the architecture exactly, or have NaN or infinite values or negative
            variances.
    """
    try:
        stored = dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        raise EnsembleError(f"not a safetensors file ({error})", source, "copy the whole folder again") from error
    tensors = {name: _array(name, value, source) for name, value in stored.items() if not name.endswith(COUNTER)}
    check_names(tensors, tensor_shapes(architecture, with_decoder=architecture.decoder_widths is not None), source)
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise EnsembleError("NaN or infinite weights", source, "the training diverged; use another checkpoint")
    negative = [name for name, value in tensors.items() if name.endswith(VARIANCE) and (value < 0).any()]
    if negative:
        raise EnsembleError(f"a variance below 0 in {negative[0]}", source, "the file is wrong; use another checkpoint")
    return tensors


def _array(name: str, value: dict[str, Any], source: str | Path) -> Array:
    if value["dtype"] not in _TYPES:
        raise EnsembleError(f"tensor {name} is of type {value['dtype']}", source, "store F16 or F32")
    return np.frombuffer(value["data"], _TYPES[value["dtype"]]).reshape(value["shape"])
