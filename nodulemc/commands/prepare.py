"""Cut every nodule with its surroundings and its mask out of its CT and store them for training (docs/data.md).

Nodules without a mask are left out; they are listed at the end and in STORE/excluded.csv. A run that was stopped goes
on where it was when it is started again. With --lidc, table and masks are made from LIDC-IDRI's readings, as
STORE/table.csv and STORE/masks; what is not downloaded in full is left out and listed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.columns import tally
from nodulemc.errors import ConfigError
from nodulemc.option_types import WORKERS
from nodulemc.options import require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder, no_empty_folders
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.data.prepare import Prepared

EXAMPLE = "nodulemc prepare --table phantoms/table.csv --ct phantoms/ct --nodule-masks phantoms/masks --output blocks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="PatientID, SeriesInstanceUID, AnnotationID, CoordX, CoordY, CoordZ, label, as LUNA25's, and the "
        "readers' ratings where there are any; an empty label means undecided",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--ct", type=Path, metavar="DIR", help="folder with <SeriesInstanceUID>.mha, or with DICOM series at any depth"
    )
    source.add_argument(
        "--nodule-blocks",
        type=Path,
        metavar="DIR",
        help="folder with the challenge's image/<AnnotationID>.npy and metadata/<AnnotationID>.npy",
    )
    source.add_argument(
        "--lidc",
        type=Path,
        metavar="DIR",
        help="LIDC-IDRI as TCIA gives it: DICOM series and the readers' XML at any depth; without --table and "
        "--nodule-masks",
    )
    parser.add_argument(
        "--nodule-masks",
        type=Path,
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
        "--workers", type=WORKERS, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per CPU)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the store, and print its content and the nodules left out."""
    check_extra("train", "pyarrow", "threadpoolctl", *(("defusedxml", "scipy") if args.lidc else ()))
    _check(args)
    require_inputs(args.table, args.ct, args.nodule_blocks, args.lidc, args.nodule_masks)
    with no_empty_folders(args.output):
        make_folder(args.output)
        prepared = _prepare(args)
    labels = tally(row["label"] for row in prepared.rows)
    print(f"written: {args.output}: {counted(len(prepared.rows), 'nodule')} ({labels})")
    if prepared.excluded:
        width = max(len(nodule.annotation_id) for nodule in prepared.excluded)
        print(f"{len(prepared.excluded)} excluded from training:")
        for nodule in prepared.excluded:
            print(f"  {nodule.annotation_id:<{width}}  {nodule.reason}")


def _check(args: argparse.Namespace) -> None:
    if args.slabs and not args.ct:
        raise ConfigError("--slabs without --ct", "nodulemc prepare", "give the folder of the slabs as --ct")
    for option, value in (("--table", args.table), ("--nodule-masks", args.nodule_masks)):
        if args.lidc and value:
            raise ConfigError(f"{option} with --lidc", "nodulemc prepare", "leave it out: it is made of the readings")
        if not args.lidc and not value:
            raise ConfigError(f"no {option}", "nodulemc prepare", "only --lidc does without it")


def _prepare(args: argparse.Namespace) -> Prepared:
    if args.lidc:
        from nodulemc.data.lidc import prepare_lidc  # its imports are needed for nothing else

        return prepare_lidc(args.lidc, args.output, args.workers)
    from nodulemc.data.extract import ChallengeBlockSource, ScanSource, SlabSource
    from nodulemc.data.nodule_table import read_table
    from nodulemc.data.prepare import prepare

    scans = SlabSource if args.slabs else ScanSource
    source = scans(args.ct) if args.ct else ChallengeBlockSource(args.nodule_blocks)
    return prepare(read_table(args.table), source, args.nodule_masks, args.output, args.workers)
