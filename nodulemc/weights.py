"""A seed's tensors: read, checked, and nothing executed. Needs no torch."""

from pathlib import Path

import numpy as np
import safetensors

from nodulemc.errors import EnsembleError
from nodulemc.manifest import Member, member_bytes
from nodulemc.models.tensor_shapes import COUNTER, DECODER_PREFIX, check_names, tensor_shapes

_TYPES = {"F16": np.float16, "F32": np.float32}


def read_weights(folder: str | Path, member: Member, *, masks: bool = False) -> dict[str, np.ndarray]:
    """A seed's tensors by name, fp16 or fp32 as stored, BatchNorm's counters left out, the decoder's only for masks.

    Raises:
        EnsembleError: the file is missing or damaged, does not fill the architecture exactly, holds NaN or
            infinite values, or lacks the decoder that masks need.
    """
    path = Path(folder) / member.file
    if masks and member.architecture.decoder_widths is None:
        raise EnsembleError("the seed has no decoder, so it cannot segment", path, "use an ensemble saved with one")
    try:
        stored = dict(safetensors.deserialize(member_bytes(folder, member)))
    except safetensors.SafetensorError as error:
        raise EnsembleError(f"not a safetensors file ({error})", path, "copy the whole folder again") from error
    tensors = {
        name: _array(name, content, path)
        for name, content in stored.items()
        if not name.endswith(COUNTER) and (masks or not name.startswith(DECODER_PREFIX))
    }
    check_names(tensors, tensor_shapes(member.architecture, with_decoder=masks), path)
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise EnsembleError("NaN or infinite weights", path, "the training diverged; use another checkpoint")
    return tensors


def _array(name: str, content: dict, path: Path) -> np.ndarray:
    if content["dtype"] not in _TYPES:
        raise EnsembleError(f"tensor {name} is of type {content['dtype']}", path, "store F16 or F32")
    return np.frombuffer(content["data"], _TYPES[content["dtype"]]).reshape(content["shape"])
