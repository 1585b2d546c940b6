"""A run over a made cohort in a process of its own, for tests that kill it: run_made.py FOLDER OUTPUT SECONDS.

SECONDS is what the ensemble takes for a nodule.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cohort.made import ENSEMBLE, MeanOfPatch

from nodulemc.cli import exit_code_of
from nodulemc.cohort.export import export
from nodulemc.cohort.listing import read_listing
from nodulemc.cohort.local_engine import LocalEngine
from nodulemc.cohort.run import Task, run_cohort


def main() -> None:
    folder, output, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    output.mkdir(exist_ok=True)
    engine = LocalEngine(partial(MeanOfPatch, seconds), workers=2)
    run_cohort(Task(read_listing(folder), folder, output, ENSEMBLE), engine)
    export(output, output)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
