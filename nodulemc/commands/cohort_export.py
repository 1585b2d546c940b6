"""Write a cohort's results as files, while it runs or afterwards.

Writes predictions.csv (as `evaluate` reads it, with patient, scan, point and warnings), predictions.parquet (the same)
and failures.csv.
Exit code 3: some scans have failed or are yet to be done.
"""

import argparse
from pathlib import Path

from nodulemc.util.extras import check_extra

EXAMPLE = "nodulemc cohort-export scored --output results --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of `nodulemc cohort`")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to (default: DIR)")
    parser.add_argument(
        "--json", action="store_true", help="also write Grand-Challenge's JSON of each scan, into FOLDER/json"
    )


def run(args: argparse.Namespace) -> int:
    """Export and print the number of results."""
    check_extra("cohort", "pyarrow")
    from nodulemc.cohort.export import export, written
    from nodulemc.cohort.summary import summary
    from nodulemc.commands.cohort import EXIT_PARTIAL

    output = args.output or args.folder
    state = export(args.folder, output, json=args.json)
    print(f"{summary(state)}\n{written(output, json=args.json)}")
    return EXIT_PARTIAL if state.without_result else 0
