"""A run over a made cohort in a process of its own, for tests that kill it: run_made.py FOLDER OUTPUT SECONDS [PAGES].

SECONDS is what the ensemble takes for a nodule. With PAGES nodules are measured, and scans get pages there, which state
always the same time.
"""

import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

from cohort.made import ENSEMBLE, MEASURING, MeanOfPatch, Segmenting

from nodulemc.cohort.export import export
from nodulemc.cohort.local_engine import LocalEngine
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.pages import Pages, write_index
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.program import exit_code_of
from nodulemc.report import page
from nodulemc.report.page import Origin

page.datetime = SimpleNamespace(now=lambda _: datetime(2026, 1, 1, tzinfo=timezone.utc))


def main() -> None:
    folder, output, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    place = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    output.mkdir(exist_ok=True)
    scans = read_cohort_manifest(folder)
    origin = Origin(Segmenting.manifest, "cpu", "fp32", False)
    pages = Pages(place, [scan.name for scan in scans], origin) if place else None
    engine = LocalEngine(partial(Segmenting if place else MeanOfPatch, seconds), workers=2)
    run_cohort(Task(scans, folder, output, MEASURING if place else ENSEMBLE, pages=pages), engine)
    export(output, output)
    if place:
        write_index(place, output)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
