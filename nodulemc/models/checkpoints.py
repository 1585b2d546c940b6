"""Reading PyTorch checkpoints as tensors only: nothing in a file is ever executed."""

import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodulemc.errors import EnsembleError

_COUNTER = "num_batches_tracked"
# What torch's unpickler was seen to raise on bytes that are no checkpoint, or a cut one.
_DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, struct.error)


def read_tensors(path: str | Path, nests: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A checkpoint's named tensors, without the ``module.`` prefix that data-parallel training adds.

    Args:
        path: file written by ``torch.save``.
        nests: keys under which the tensors may lie, instead of at the top.

    Raises:
        EnsembleError: the file is missing, no checkpoint, or holds anything but tensors and plain containers.
    """
    try:
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
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def check_names(tensors: dict[str, Tensor], model: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Check that tensors fill a model exactly; BatchNorm's step counters, which inference ignores, may be missing.

    Returns:
        The tensors, with counters of zero where they were missing.

    Raises:
        EnsembleError: a tensor is missing, left over or of another shape.
    """
    expected = model.state_dict()
    tensors = {
        name: torch.zeros(v.shape, dtype=v.dtype) for name, v in expected.items() if name.endswith(_COUNTER)
    } | tensors
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    misshapen = [n for n in expected if n in tensors and tensors[n].shape != expected[n].shape]
    for kind, names in (("missing", missing), ("left over", left_over), ("of another shape", misshapen)):
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise EnsembleError(
                f"{len(names)} tensors {kind} ({shown})", path, "give a checkpoint of this architecture"
            )
    return tensors
