"""Is the AUC of one set of predictions higher than that of another for the same nodules?

Paired DeLong test and patient-level bootstrap of the difference, first minus second.
"""

import argparse
from pathlib import Path

from nodulemc.options import add_bootstrap_option, require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.text import counted

EXAMPLE = "nodulemc compare ours.csv theirs.csv --table table.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("first", type=Path, metavar="A.csv", help="AnnotationID, label, probability")
    parser.add_argument("second", type=Path, metavar="B.csv", help="the same nodules, in any order")
    parser.add_argument("--table", type=Path, metavar="TABLE.csv", help="labels and patients, as for `evaluate`")
    add_bootstrap_option(parser)


def run(args: argparse.Namespace) -> None:
    """Compare and print."""
    check_extra("report")
    from nodulemc.evaluation.compare import compare
    from nodulemc.evaluation.predictions import read_predictions, read_table

    require_inputs(args.first, args.second, args.table)
    table = read_table(args.table) if args.table else None
    found = compare(
        read_predictions([args.first], table), read_predictions([args.second], table), resamples=args.bootstrap
    )
    unit = "nodules" if found.patients is None else counted(found.patients, "patient")
    print(f"{counted(found.nodules, 'nodule')}, {found.malignant} malignant")
    if found.caution:
        print(f"caution: {found.caution}")
    for path, auc in zip((args.first, args.second), found.auc, strict=True):
        print(f"AUC {auc:.4f}  {path}")
    print(f"difference  {found.difference:+.4f}")
    print(f"DeLong      {_test(found.delong_ci95, found.delong_p)}")
    print(f"bootstrap   {_test(found.bootstrap_ci95, found.bootstrap_p)}, {args.bootstrap} resamples of {unit}")


def _test(interval: list[float] | None, p: float | None) -> str:
    if interval is None or p is None:
        return "no interval: a class has too few nodules"
    return f"95 % CI {interval[0]:+.4f} to {interval[1]:+.4f}, p = {p:.2g}"
