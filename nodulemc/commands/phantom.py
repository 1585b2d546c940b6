"""Procedural low-dose chest CTs with nodules of known malignancy probability, in LUNA25's layout (docs/phantoms.md).

Writes DIR/ct/<SeriesInstanceUID>.mha (int16 HU), DIR/masks/<AnnotationID>.mha (uint8, the CT's voxels around the
nodule) and DIR/table.csv (LUNA25's columns, then the phantom's own truth). The same seed gives the same files; patient
i of a seed is the same in cohorts of any size. The same command, or one for more patients, goes on where it stopped.
With --blocks DIR becomes a block store for `nodulemc train` instead, without whole CTs on the way; --controls K then
keeps every malignant nodule and about K benign ones for each.
"""

import argparse
import os
from pathlib import Path

from nodulemc.errors import ConfigError
from nodulemc.limits import MAX_PHANTOM_CONTROLS, MAX_PHANTOM_PATIENTS
from nodulemc.option_types import SEED, WORKERS, number, whole_number
from nodulemc.options import require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder
from nodulemc.util.progress import progress
from nodulemc.util.text import counted

EXAMPLE = "nodulemc phantom --output phantoms --patients 4 --seed 7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--patients", type=whole_number(1, MAX_PHANTOM_PATIENTS), required=True, metavar="N", help="number of patients"
    )
    parser.add_argument("--seed", type=SEED, required=True, metavar="S", help="0 or more")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--blocks", action="store_true", help="write a block store, without whole CTs")
    what.add_argument(
        "--into", type=Path, metavar="CT", help="put the nodules into the lungs of this CT instead of procedural chests"
    )
    parser.add_argument(
        "--controls",
        type=number(0, MAX_PHANTOM_CONTROLS),
        metavar="K",
        help="with --blocks: about K benign nodules for each malignant one (default: all, about ten)",
    )
    parser.add_argument(
        "--workers", type=WORKERS, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per CPU)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the cohort, and print its content."""
    check_extra("train", "threadpoolctl", *(["pyarrow"] if args.blocks else []))
    from nodulemc.ct.volume import read_volume
    from nodulemc.phantom.block_store import write_block_store
    from nodulemc.phantom.finished import finished_rows
    from nodulemc.phantom.generate import patients_until_malignant, series_uids, write_cohort
    from nodulemc.phantom.insertion import Host
    from nodulemc.phantom.malignancy import best_auc

    if args.controls is not None and not args.blocks:
        raise ConfigError("--controls without --blocks", "nodulemc phantom", "give both, or leave it out")
    require_inputs(args.into)
    make_folder(args.output)
    kept = sum(finished_rows(args.output, uid) is not None for uid in series_uids(args.seed, args.patients))
    cohort = (args.output, args.seed, args.patients, args.workers)
    try:
        if args.blocks:
            rows = write_block_store(*cohort, args.controls)
        else:
            given = [read_volume(args.into)] if args.into else []
            hosts = [*progress(map(Host.measure, given), len(given), "measuring the CT")]
            rows = write_cohort(*cohort, host=next(iter(hosts), None))
    except OSError as error:
        raise ConfigError(
            f"cannot write phantoms ({error})", args.output, "check that it is writable and not full"
        ) from error
    malignant = sum(row["label"] for row in rows)
    scans = counted(len({row["SeriesInstanceUID"] for row in rows}), "scan")
    there = f", {kept} of them from an earlier run" if kept else ""
    print(f"{counted(len(rows), 'nodule')} ({malignant} malignant) in {scans}{there}")
    if not malignant:
        needed = patients_until_malignant(args.seed)
        print(f"no nodule is malignant, as training and evaluation need: give --patients {needed} or more")
    if len(rows) > 1:
        print(f"best reachable AUC, expected over the labels: {best_auc([row['probability'] for row in rows]):.4f}")
    print(f"written: {args.output}")
