"""Train seeds one after another from a block store and export them as an ensemble folder.

For several GPUs or machines start it with Accelerate, for example `accelerate launch -m nodulemc.cli train ...`.
"""

import argparse
from pathlib import Path

EXAMPLE = "nodulemc train configs/nodulemc.yaml --store blocks --split split.json --output run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the recipe, see configs/")
    parser.add_argument("--store", type=Path, required=True, help="block store made by `nodulemc prepare`")
    parser.add_argument("--split", type=Path, required=True, help="JSON file made by `nodulemc split`")
    parser.add_argument("--fold", type=int, help="validate on this fold (from 0) of a k-fold split")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for DIR/seed_N (checkpoint, metrics), DIR/ensemble"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2000, 2001, 2002], help="default: 2000 2001 2002")
    parser.add_argument("--resume", action="store_true", help="finish the runs that are in DIR")
    parser.add_argument("--decoder", action="store_true", help="export the decoders, too, for masks")


def run(args: argparse.Namespace) -> None:
    """Train and export."""
    from nodulemc.training.config import read_config
    from nodulemc.training.data import load_training_data
    from nodulemc.training.devices import create_accelerator
    from nodulemc.training.export import DataSummary, export_ensemble
    from nodulemc.training.trainer import train_seed

    config = read_config(args.config)
    data = load_training_data(args.store, args.split, args.fold)
    trained = []
    for seed in args.seeds:
        # A new one for each seed, so that no state, such as the gradient scaler's, passes from seed to seed.
        accelerator = create_accelerator(config.run.precision)
        folder = args.output / f"seed_{seed}"
        trained.append(train_seed(config, data, folder, seed, accelerator, resume=args.resume))
        accelerator.free_memory()
    if accelerator.is_main_process:
        export_ensemble(args.output / "ensemble", trained, config, DataSummary.of(data), decoder=args.decoder)
    accelerator.wait_for_everyone()
    accelerator.end_training()
