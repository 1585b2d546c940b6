"""Divide nodules into training and validation samples; no patient is on both sides (docs/data.md).

The scheme nodulemc draws about 200 validation samples from group A (all malignant samples and as many benign ones);
kfold makes stratified folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.columns import tally
from nodulemc.errors import ConfigError
from nodulemc.limits import MAX_TABLE_ROWS
from nodulemc.option_types import SEED, whole_number
from nodulemc.options import require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.data.nodule_table import Row

EXAMPLE = "nodulemc split luna25_training.csv --seed 2000 --output split.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from nodulemc.data.split import VALIDATION_SAMPLES

    parser.add_argument(
        "table", type=Path, metavar="TABLE", help="table as for `prepare`, or a block store: then only what it holds"
    )
    parser.add_argument("--scheme", choices=("nodulemc", "kfold"), default="nodulemc", help="default: nodulemc")
    parser.add_argument("--seed", type=SEED, required=True, metavar="N", help="0 or more")
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="file to write")
    parser.add_argument(
        "--validation",
        type=_samples,
        default=VALIDATION_SAMPLES,
        metavar="N",
        help=f"nodulemc: at most this many validation samples; 0 trains on all (default: {VALIDATION_SAMPLES})",
    )
    parser.add_argument("--group-a", type=Path, metavar="CSV", help="nodulemc: published group A (valid_1-1.csv)")
    parser.add_argument("--group-b", type=Path, metavar="CSV", help="nodulemc: published group B (train_other.csv)")
    parser.add_argument(
        "--folds", type=whole_number(2, MAX_TABLE_ROWS), default=5, metavar="N", help="kfold: how many (default: 5)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the split, and print its content."""
    from nodulemc.data import split
    from nodulemc.data.block_store import BlockStore
    from nodulemc.data.nodule_table import read_table
    from nodulemc.util.json_files import write_json_atomically

    _check(args)
    if args.scheme == "kfold":
        check_extra("train", "sklearn")
    if args.table.is_dir():
        check_extra("train", "pyarrow")
    require_inputs(args.table, args.group_a, args.group_b)
    make_folder(args.output.parent)
    rows = BlockStore(args.table).table if args.table.is_dir() else read_table(args.table).rows
    print(_described("samples", rows))
    content: Mapping[str, object]
    if args.scheme == "kfold":
        content = by_fold = split.split_folds(rows, args.folds, args.seed, args.table)
        sides = {f"fold {k}": names for k, names in enumerate(by_fold["folds"])}
    else:
        if args.group_a:
            a, b = ([row["AnnotationID"] for row in read_table(path).rows] for path in (args.group_a, args.group_b))
            groups = split.given_groups(rows, a, b, args.table)
        else:
            groups = split.draw_groups(rows, args.seed)
        print(_described("group A", groups.a))
        print(_described("group B", groups.b))
        content = sides = split.split_groups(groups, args.validation, args.seed, args.table)
    write_json_atomically(args.output, content)
    by_name = {row["AnnotationID"]: row for row in rows}
    for name, side in sides.items():
        print(_described(name, [by_name[annotation_id] for annotation_id in side]))
    print(f"written: {args.output}")


def _samples(text: str) -> int:
    """Return the number of validation samples: none, or some of both classes."""
    return whole_number(0)(text) and whole_number(2, MAX_TABLE_ROWS)(text)


def _check(args: argparse.Namespace) -> None:
    if (args.group_a is None) != (args.group_b is None):
        raise ConfigError("one of --group-a and --group-b", "nodulemc split", "give both groups or none")
    if args.group_a and args.scheme == "kfold":
        raise ConfigError("--group-a with --scheme kfold", "nodulemc split", "folds are made of the whole table")


def _described(name: str, rows: Sequence[Row]) -> str:
    labels = tally(row["label"] for row in rows)
    patients = len({row["PatientID"] for row in rows})
    return f"{name}: {counted(len(rows), 'sample')} ({labels}) of {counted(patients, 'patient')}"
