"""Evaluate an ensemble on phantoms it has not seen: OUTPUT/store, predictions.csv, metrics.json and report.html.

Nodules are drawn with their surroundings only, not as whole CTs. A run that was stopped goes on where it was.

    .venv/bin/python scripts/phantom_report.py OUTPUT --patients 100 --seed 25 --resources resources
"""

import argparse
import sys
from pathlib import Path

from nodulemc import cli
from nodulemc.phantom.block_store import write_block_store


def main() -> int:
    """Draw the nodules that are not there yet, then evaluate; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--patients", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--seed", type=int, default=25, metavar="S", help="not a seed trained on (default: 25)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw (default: 1)")
    parser.add_argument("--resources", type=Path, default=Path("resources"), metavar="DIR", help="ensemble folder")
    args = parser.parse_args()
    store = args.output / "store"
    return cli.exit_code_of(lambda: write_block_store(store, args.seed, args.patients, args.workers)) or cli.main(
        ["evaluate", "--store", str(store), "--resources", str(args.resources), "--output", str(args.output)]
    )


if __name__ == "__main__":
    sys.exit(main())
