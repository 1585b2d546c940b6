"""The cost of masks, measurements and the case page on top of predicting a real scan, each in cold processes.

    python benchmarks/page.py [--data ../shared/data]

The scan is LIDC-IDRI-0003 (140 DICOM slices) with the nodules that its readers outlined. Prediction alone is the floor.
It runs once in each round beside the others. Their cost is the median over rounds of the difference to it. Run it on an
idle machine; it takes about a minute.
"""

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from measure import record, run_cold

from nodulemc.ct.volume import read_volume
from nodulemc.data.lidc_nodules import nodules_of
from nodulemc.data.lidc_xml import read_reading
from nodulemc.ensemble.manifest import PACKAGED_MODEL
from nodulemc.geometry import Grid

SCAN = Path("lidc") / "scans" / "LIDC-IDRI-0003"
READERS = "072.xml"
FLOOR = "prediction"


class Cost(NamedTuple):
    """The cost of one kind of run: medians of its rounds, and the largest peak."""

    seconds: float
    over_floor_seconds: float
    of_floor: float
    peak_mb: float


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with lidc/")
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (default: 7)")
    args = parser.parse_args(arguments)
    scan = args.data / SCAN
    if not scan.is_dir():
        parser.error(f"no scan at {scan}: give the folder with lidc/ as --data")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        nodules = write_points(scan, folder / "points.csv")
        rounds = measure(scan, folder, args)
        page_mb = (folder / "page.html").stat().st_size / 1e6
    found = {name: cost(rounds, name) for name in rounds}
    print(f"{nodules} nodules\n{'':12}  seconds  over the prediction  times  peak MB")
    for name, (seconds, over, times, peak) in found.items():
        print(f"{name:12}  {seconds:7.2f}  {over:19.2f}  {times:5.2f}  {peak:7.0f}")
    print(f"the page has {page_mb:.2f} MB")
    costs = {name: one._asdict() for name, one in found.items()}
    record("page", {"scan": scan.name, "nodules": nodules, "costs": costs, "page_mb": page_mb})


def write_points(scan: Path, file: Path) -> int:
    """Write the centres of the nodules that the readers of a scan outlined, and return their number."""
    image = read_volume(scan).image
    found = nodules_of(read_reading(scan / READERS).markings, Grid.of(image))
    points = [image.TransformContinuousIndexToPhysicalPoint(nodule.centre.tolist()) for nodule in found]
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([("x", "y", "z"), *points])
    return len(points)


def measure(scan: Path, folder: Path, args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds and peak memory in MB of each kind of run, round by round."""
    kinds: dict[str, list[Any]] = {
        FLOOR: [],
        "--masks": ["--masks", folder / "masks"],
        "--measure": ["--measure"],
        "--report": ["--report", folder / "page.html"],
    }
    predict = ["-m", "nodulemc", "predict", scan, "--points", folder / "points.csv", "--resources", args.resources]
    rounds = {name: [] for name in kinds}
    for _ in range(args.repeats):
        for name, options in kinds.items():
            words = [*predict, "--output", folder / "out.json", *options]
            rounds[name].append(run_cold([*map(str, words)]))
    return rounds


def cost(rounds: dict[str, list[tuple[float, float]]], name: str) -> Cost:
    """Return the cost of one kind of run, beside the floor of the same rounds."""
    own, floor = ([seconds for seconds, _ in rounds[kind]] for kind in (name, FLOOR))
    return Cost(
        statistics.median(own),
        statistics.median(a - b for a, b in zip(own, floor, strict=True)),
        statistics.median(a / b for a, b in zip(own, floor, strict=True)),
        max(peak for _, peak in rounds[name]),
    )


if __name__ == "__main__":
    main()
