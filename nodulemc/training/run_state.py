"""The state of a training run on disk. A run that continues from it gives the same result as one without a stop."""

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
    """A run's state at the end of an epoch. The samplers' position is ``epochs_done``; they depend on nothing else.

    Attributes:
        recipe: The config as plain values.
        seed: The run's seed.
        data: The fingerprint of the samples and their order.
        epochs_done: The number of finished epochs.
        network: The trained network's state dict.
        ema: The averaged network's state dict.
        ema_updates: The number of the average's updates.
        optimizer: The optimizer's state dict.
        scaler: The gradient scaler's state dict. None without a scaler.
        random: The random generators' states, see ``random_state``.
        history: One row of metrics per epoch.
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
    """Write atomically: ``path`` holds either this state or the previous one.

    Raises:
        FileError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **vars(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a state onto the CPU. Only tensors and plain values are unpickled.

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
    """Return the states of all random generators, as tensors and plain values."""
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
    """Set all random generators to a state from ``random_state``; CUDA's only if the number of devices is the same."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
