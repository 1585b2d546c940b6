"""Training: samples per second and its parts, in each precision, compiled or not, and a resumed run.

The modules of training are imported where they are used, as each recipe is in its own process.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpu_parts.row import Row, attempt
from gpu_parts.setting import UNTRAINED, Setting, ShrunkNetwork, in_process
from nodulemc.data.block_store import BlockStore
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig, TrainingConfig, read_config

if TYPE_CHECKING:
    from training import Figures

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "nodulemc.yaml"
_SEED = 5
# The share of the pure step's rate.
_GOAL = 0.9


class _StoppedError(Exception):
    """Represents anything that ends a run early."""


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the published recipe in fresh processes. Compiling, which takes long, comes last."""
    from training import write_random_blocks

    half = setting.half
    precisions = {"bf16": (half, "fp16"), "fp16": ("fp16",), "fp32": ("fp32",)}[half]
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "blocks"
        write_random_blocks(store, 4 if setting.small else 96)
        for precision in precisions:
            yield from attempt(precision, _recipe(setting, store, precision, "no"))
        yield from attempt("a resumed run", _resumed(setting, store, Path(temporary)))
        yield from attempt(f"{half}, compiled", _recipe(setting, store, half, setting.compiler))


def _config(setting: Setting, precision: str) -> TrainingConfig:
    config = read_config(_CONFIG)
    # Training starts from random weights. A bare machine has no others, and their speed is the same.
    config = replace(config, model=replace(config.model, kinetics=None))
    if setting.small:
        config = replace(
            config,
            model=replace(config.model, decoder_widths=UNTRAINED.decoder_widths),
            run=replace(config.run, batch_size=2, workers=0),
        )
    return replace(config, run=replace(config.run, precision=precision))


def _create(setting: Setting, model: ModelConfig, seed: int) -> PatchNetwork:
    from nodulemc.training.trainer import create_network

    network = create_network(model, seed)
    return ShrunkNetwork(network.network) if setting.small else network


def _recipe(setting: Setting, store: Path, precision: str, compiler: str) -> Iterator[Row]:
    config = _config(setting, precision)
    # Accelerate checks only once whether to compile.
    alone = setting.alone if compiler == "no" else in_process
    figures = alone(_measure, setting, store, config, compiler)
    name = f"{precision}{'' if compiler == 'no' else f', compiled by {figures.compiler}'}"
    share = figures.training / figures.network
    memory = "" if figures.gpu_memory is None else f", peak {figures.gpu_memory / 2**30:.2f} GiB"
    judged = setting.device == "cuda"
    of_goal = f" (goal {100 * _GOAL:.0f})" if judged else ""
    yield Row(
        f"{name}: training, batch {config.run.batch_size}",
        figures.training,
        "samples/s",
        f"{100 * share:.1f} % of the step alone{of_goal}, first step {figures.start:.1f} s{memory}",
        share >= _GOAL if judged else None,
    )
    yield Row(f"{name}: the step alone", figures.network, "samples/s")
    yield Row(f"{name}: waiting for data", 100 * figures.waiting, "% of time")
    yield Row(f"{name}: reading alone", figures.reading, "samples/s", f"{config.run.workers} processes")
    yield Row(f"{name}: resampling alone", figures.resampling, "samples/s")


def _measure(setting: Setting, store: Path, config: TrainingConfig, compiler: str) -> "Figures":
    from training import measure

    os.environ["ACCELERATE_DYNAMO_BACKEND"] = compiler.upper()
    warmup, steps = (1, 1) if setting.small else (3, 10)
    return measure(config, BlockStore(store), warmup, steps, partial(_create, setting))


def _resumed(setting: Setting, store: Path, folder: Path) -> Iterator[Row]:
    difference, usual = setting.alone(_train_thrice, setting, store, folder)
    beside = f"mean of all weights; two whole runs differ by {usual:.1e}"
    yield Row("a resumed run's difference from a whole one", difference, "", beside, difference <= 2 * usual)


def _train_thrice(setting: Setting, store: Path, folder: Path) -> tuple[float, float]:
    """Return the mean differences of two runs' weights from those of a whole run.

    The first run is resumed, and the second is another whole one.
    """
    from nodulemc.training import trainer
    from nodulemc.training.devices import create_accelerator

    config = _config(setting, setting.half)
    size = 2 if setting.small else 8
    run = replace(config.run, epochs=2, batch_size=size, samples_per_epoch=size, workers=0)
    # The decoder is smaller, so that writing checkpoints takes little time.
    config = replace(config, model=replace(config.model, decoder_widths=UNTRAINED.decoder_widths), run=run)
    blocks = BlockStore(store)
    labels = [k % 2 for k in range(len(blocks))]
    data = trainer.TrainingData(blocks, labels, range(len(blocks)), range(2))

    def train(name: str, *, resume: bool = False) -> dict[str, torch.Tensor]:
        accelerator, create = create_accelerator(run.precision), partial(_create, setting)
        return trainer.train_seed(
            config, data, folder / name, _SEED, accelerator, resume=resume, create=create
        ).state_dict

    whole, again = train("whole"), train("again")
    save, trainer.save_checkpoint = trainer.save_checkpoint, _stop_after_saving
    try:
        train("stopped")
    except _StoppedError:
        trainer.save_checkpoint = save
    return _difference(whole, train("stopped", resume=True)), _difference(whole, again)


def _stop_after_saving(path: Path, checkpoint: object) -> None:
    from nodulemc.training.run_state import save_checkpoint

    save_checkpoint(path, checkpoint)
    raise _StoppedError


def _difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    pairs = [(one[name].double(), other[name].double()) for name in one]
    return float(sum((a - b).abs().sum() for a, b in pairs) / sum(a.numel() for a, _ in pairs))
