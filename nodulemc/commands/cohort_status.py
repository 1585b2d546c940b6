"""How far a cohort is, while it runs or afterwards: scans done, failed and to do, speed, and what has failed."""

import argparse
from pathlib import Path

EXAMPLE = "nodulemc cohort-status scored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of `nodulemc cohort`")


def run(args: argparse.Namespace) -> None:
    """Print the state."""
    from nodulemc.cohort.state import read_state
    from nodulemc.cohort.summary import summary

    print(summary(read_state(args.folder)))
