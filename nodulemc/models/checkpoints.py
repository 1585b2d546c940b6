"""Reading PyTorch checkpoints as tensors only. Nothing in a file is ever executed."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodulemc.errors import EnsembleError
from nodulemc.models.tensor_shapes import COUNTER
from nodulemc.util.files import require_regular

# The errors that torch's unpickler was seen to raise for bytes that are no checkpoint, or a truncated one.
_DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, struct.error)


def read_tensors(path: str | Path, nests: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return a checkpoint's named tensors, without the ``module.`` prefix that data-parallel training adds.

    Args:
        path: A file written by ``torch.save``.
        nests: The keys under which the tensors may lie, instead of at the top.

    Raises:
        FileError: it is no regular file.
        EnsembleError: the file is missing, no checkpoint, or holds anything but tensors and plain containers. Or a
            tensor is sparse, nested, quantised, without content, or of integers although it is no counter.
    """
    try:
        require_regular(Path(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EnsembleError(f"cannot read the checkpoint ({error.strerror})", path, "check the path") from error
    except pickle.UnpicklingError as error:
        raise EnsembleError(
            "the checkpoint holds more than tensors, or is damaged", path, "save the state dict alone with torch.save"
        ) from error
    except _DAMAGE as error:
        raise EnsembleError("not a PyTorch checkpoint", path, "give a file written by torch.save") from error
    for nest in nests:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise EnsembleError("not a state dict", path, "give a file that holds named tensors")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items()}
    if len(tensors) < len(content):
        raise EnsembleError("two tensors have one name, but for module.", path, "save one network alone")
    for name, value in tensors.items():
        flaw = _flaw(value, number=name.endswith(COUNTER))
        if flaw:
            raise EnsembleError(f"tensor {name} is {flaw}", path, "save dense floating-point tensors")
    return tensors


def _flaw(tensor: Tensor, *, number: bool) -> str | None:
    """Return why a tensor cannot fill a network. None if it can. With ``number`` it may hold integers."""
    if tensor.is_meta:
        return "without content"
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        return "sparse, nested or quantised"
    return None if number or tensor.is_floating_point() else f"of type {tensor.dtype}"


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace a model's tensors with those that ``check_names`` has passed. BatchNorm's counters start at zero.

    The tensors keep their types. The model may be on the meta device.
    """
    counters = {name: torch.tensor(0) for name in model.state_dict() if name.endswith(COUNTER)}
    model.load_state_dict(counters | dict(tensors), assign=True)
