"""Train seeds one after another from a block store and export them as an ensemble folder.

For several GPUs or machines start it with Accelerate, for example `accelerate launch -m nodulemc.cli train ...`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.errors import ConfigError
from nodulemc.option_types import SEED
from nodulemc.options import require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.training.trainer import TrainedSeed

EXAMPLE = "nodulemc train configs/phantom_cpu.yaml --store blocks --split split.json --output run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the recipe, see configs/; it comes first")
    parser.add_argument("--store", type=Path, required=True, help="block store made by `nodulemc prepare`")
    parser.add_argument(
        "--split",
        type=Path,
        nargs="+",
        required=True,
        metavar="JSON",
        help="made by `nodulemc split`: one for all seeds, or one for each, in the order of --seeds",
    )
    parser.add_argument("--fold", type=int, help="validate on this fold (from 0) of a k-fold split")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for DIR/seed_N (checkpoint, metrics), DIR/ensemble"
    )
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[2000, 2001, 2002], help="default: 2000 2001 2002")
    parser.add_argument("--resume", action="store_true", help="finish the runs that are in DIR")
    parser.add_argument("--keep-decoder", action="store_true", help="export the decoders, too, for masks")


def run(args: argparse.Namespace) -> None:
    """Train and export."""
    check_extra("train")
    check_seeds(args.seeds)
    require_inputs(args.config, args.store, *args.split)
    from nodulemc.training.config import read_config
    from nodulemc.training.devices import create_accelerator
    from nodulemc.training.export import DataSummary, export_ensemble
    from nodulemc.training.trainer import require_no_run, train_seed
    from nodulemc.training.training_data import load_training_data, training_cases
    from nodulemc.training.warm_start import lacks_attributes, start_cases, start_tensors

    config = read_config(args.config)
    config.card.require(args.config)
    if len(args.split) not in (1, len(args.seeds)):
        raise ConfigError(
            f"{len(args.split)} splits for {len(args.seeds)} seeds",
            "--split",
            "give one for all seeds, or one for each",
        )
    data = [load_training_data(args.store, split, args.fold) for split in args.split]
    folders = {seed: args.output / f"seed_{seed}" for seed in args.seeds}
    if not args.resume:
        for folder in folders.values():
            require_no_run(folder)
    make_folder(args.output)
    if config.model.start_from is not None:
        for seed in args.seeds:  # otherwise a missing one would show only after the seeds before it are trained
            start_tensors(config.model, seed)
    cases = [
        training_cases(samples) | start_cases(config.model, seed)
        for seed, samples in zip(args.seeds, cycle(data), strict=False)
    ]
    trained = []
    for (seed, folder), samples in zip(folders.items(), cycle(data), strict=False):
        # Each seed gets a new one, so that no state, such as the gradient scaler's, passes from seed to seed.
        accelerator = create_accelerator(config.run.precision)
        start = config.model.start_from
        if config.model.attributes and start and accelerator.is_main_process and lacks_attributes(config.model, seed):
            print(f"seed {seed}: the attribute head starts from random weights, as {start} has none")
        trained.append(train_seed(config, samples, folder, seed, accelerator, resume=args.resume))
        accelerator.free_memory()
    if accelerator.is_main_process:
        ensemble, summaries = args.output / "ensemble", [DataSummary.of(samples) for samples in data]
        manifest = export_ensemble(
            ensemble, trained, config, summaries, decoder=args.keep_decoder, cases=cases, fold=args.fold
        )
        for seed in trained:
            print(_described(seed))
        bf16 = manifest.max_deviation["bf16"]
        print(f"written: {ensemble}: {counted(len(trained), 'member')}; bf16 differs from fp32 by at most {bf16:.4f}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _described(trained: TrainedSeed) -> str:
    """Describe the figures after the last epoch."""
    last = trained.history[-1]
    names = {"train_loss": "training loss", "validation_auc": "validation AUC"}
    figures = ", ".join(f"{words} {last[name]:.4f}" for name, words in names.items() if name in last)
    return f"seed {trained.seed}, {counted(len(trained.history), 'epoch')}: {figures}"


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError if a seed is given twice."""
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ConfigError(f"seed {seed} is given twice", "--seeds", "give each once")
