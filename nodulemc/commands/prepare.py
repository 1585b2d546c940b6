"""Cut every nodule with its surroundings and its mask out of its CT and store them for training (docs/data.md).

Nodules without a mask are left out; they are listed at the end and in STORE/excluded.csv. A run that was stopped goes
on where it was when it is started again.
"""

import argparse
import os
from pathlib import Path

from nodulemc.errors import ConfigError, TableError
from nodulemc.extras import check_extra
from nodulemc.json_files import make_folder
from nodulemc.labels import tally
from nodulemc.options import require_inputs
from nodulemc.words import counted

EXAMPLE = "nodulemc prepare --table phantoms/table.csv --ct phantoms/ct --masks phantoms/masks --output blocks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--table",
        type=Path,
        required=True,
        metavar="CSV",
        help="PatientID, SeriesInstanceUID, AnnotationID, CoordX, CoordY, CoordZ, label, as LUNA25's, and the "
        "readers' ratings where there are any; an empty label means undecided",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ct", type=Path, metavar="DIR", help="folder with <SeriesInstanceUID>.mha")
    source.add_argument(
        "--nodule-blocks",
        type=Path,
        metavar="DIR",
        help="folder with the challenge's image/<AnnotationID>.npy and metadata/<AnnotationID>.npy",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with <AnnotationID> or <SeriesInstanceUID> .mha, .nii.gz or .nii, or image/<AnnotationID>.npy",
    )
    parser.add_argument(
        "--slabs",
        action="store_true",
        help="with --ct: the files show only the slices that a nodule touches; continue them above and below",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="STORE", help="folder to write")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per CPU)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the store and say what it holds and what was left out."""
    check_extra("train", "pyarrow", "threadpoolctl")
    from nodulemc.training.cutting import ChallengeBlocks, Scans, Slabs
    from nodulemc.training.prepare import prepare
    from nodulemc.training.tables import read_table

    if args.workers < 1:
        raise ConfigError(f"--workers {args.workers}", "nodulemc prepare", "give 1 or more")
    if args.slabs and not args.ct:
        raise ConfigError("--slabs without --ct", "nodulemc prepare", "the challenge's blocks are whole")
    require_inputs(args.table, args.ct, args.nodule_blocks, args.masks)
    make_folder(args.output, TableError)
    scans = Slabs if args.slabs else Scans
    source = scans(args.ct) if args.ct else ChallengeBlocks(args.nodule_blocks)
    prepared = prepare(read_table(args.table), source, args.masks, args.output, args.workers)
    labels = tally(row["label"] for row in prepared.rows)
    print(f"written: {args.output}: {counted(len(prepared.rows), 'nodule')} ({labels})")
    if prepared.excluded:
        width = max(len(nodule.annotation_id) for nodule in prepared.excluded)
        print(f"{len(prepared.excluded)} excluded from training:")
        for nodule in prepared.excluded:
            print(f"  {nodule.annotation_id:<{width}}  {nodule.reason}")
