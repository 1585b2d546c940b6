"""The state of a training run on disk, from which it goes on as if it had never stopped."""

import io
import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nodulemc.errors import ConfigError
from nodulemc.util.files import write_atomically

_FORMAT = 1


@dataclass
class Checkpoint:
    """A run's state at the end of an epoch. The samplers' position is ``epochs_done``: they depend on nothing else.

    Attributes:
        recipe: the config as plain values.
        seed: the run's.
        data: fingerprint of the samples and their order.
        epochs_done: finished epochs.
        network: the trained network's state dict.
        ema: the averaged network's state dict.
        ema_updates: how often it was updated.
        optimizer: the optimizer's state dict.
        scaler: the gradient scaler's state dict, None without one.
        random: the random generators' states, see ``random_state``.
        history: one row of metrics per epoch.
    """

    recipe: dict[str, Any]
    seed: int
    data: str
    epochs_done: int
    network: dict[str, Any]
    ema: dict[str, Any]
    ema_updates: int
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    random: dict[str, Any]
    history: list[dict[str, float]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: ``path`` holds either this state or the one before.

    Raises:
        FileError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **vars(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a state onto the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        ConfigError: the file is unreadable or no checkpoint of this format.
    """
    remedy = "delete it to start this seed again"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"cannot read the checkpoint ({error})", path, remedy) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ConfigError(f"not a checkpoint of format {_FORMAT}", path, remedy)
    return Checkpoint(**content)


def random_state() -> dict[str, Any]:
    """States of all random generators, as tensors and plain values."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 (libraries may use it)
    keys, position = numpy["state"]["key"], numpy["state"]["pos"]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            numpy["bit_generator"],
            torch.from_numpy(keys.astype(np.int64)),
            position,
            numpy["has_gauss"],
            numpy["gauss"],
        ],
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set all random generators to a state from ``random_state``; CUDA's only where the devices are as many."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
