"""Evaluate an ensemble on phantoms it has not seen: OUTPUT/store, predictions.csv, metrics.json and report.html.

Nodules are drawn with their surroundings only, not as whole CTs. A run that was stopped goes on where it was.

    .venv/bin/python scripts/phantom_report.py OUTPUT --patients 100 --seed 25 --resources resources
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from nodulemc import cli
from nodulemc.phantom.cohort import iter_nodule_blocks
from nodulemc.progress import progress
from nodulemc.training.blocks import BlockWriter, NoduleBlock
from nodulemc.training.tables import COORDINATES


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
    return cli.exit_code_of(lambda: draw(store, args.seed, args.patients, args.workers)) or cli.main(
        ["evaluate", "--store", str(store), "--resources", str(args.resources), "--output", str(args.output)]
    )


def draw(store: Path, seed: int, patients: int, workers: int) -> None:
    """Write the nodules of a phantom cohort's first patients to a block store."""
    with BlockWriter(store) as writer:
        # PatientIDs are (seed + 1) million + number + 1; the last patient may lack nodules.
        drawn = [int(row["PatientID"]) - (seed + 1) * 1_000_000 - 1 for row in writer.rows.values()]
        rest = range(max(drawn, default=0), patients)
        for block in iter_nodule_blocks(seed, progress(rest, len(rest), "patients"), workers):
            point = np.array([block.row[column] for column in COORDINATES])
            whole = (np.full(3, -np.inf), np.full(3, np.inf))
            origin = np.array(block.grid.origin)
            writer.add(
                NoduleBlock(block.ct_array, block.mask_array, origin, block.grid.matrix, point, whole, block.row)
            )


if __name__ == "__main__":
    sys.exit(main())
