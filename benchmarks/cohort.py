"""Scans per second of `nodulemc cohort` and its memory, compared with the sum of its floors from the same run.

    python benchmarks/cohort.py PHANTOMS [--scans 500]

PHANTOMS is a folder of `nodulemc phantom`. Its scans are used as often as needed by hard links, each time under another
name and with other nodule names. So each is read, inflated, hashed and scored anew, but comes from the page cache, as
for the floors. The floors are the least cost of a scan, with all cores at work on one thing: reading the CT
(``read_volume``, one process per core), and the network for its nodules. They are measured before and after the run,
and their means count. They leave out start-up, patches, hashes, the store and the exports.

Memory is that of all processes of the run together. Its peak is given for each quarter of the run. Run the benchmark on
an idle machine.
"""

import argparse
import csv
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import SimpleITK as sitk
from measure import record

from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.scan import Scan
from nodulemc.ct.volume import read_volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import PACKAGED_MODEL
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.hardware import available_cores

_COLUMNS = ("SeriesInstanceUID", "AnnotationID", "CoordX", "CoordY", "CoordZ", "label")
_READS = 3
_PROBES = 12
_SAMPLE_S = 0.2
_QUARTERS = 4


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantoms", type=Path, metavar="PHANTOMS", help="folder of `nodulemc phantom`")
    parser.add_argument("--scans", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--precision", default="auto", help="fp32 or bf16 (default: auto)")
    args = parser.parse_args()
    phantoms = read_cohort_manifest(args.phantoms)
    # The links need the phantoms' file system.
    with tempfile.TemporaryDirectory(dir=args.phantoms) as folder:
        nodules = multiply(phantoms, args.scans, Path(folder) / "cohort")
        before = floors(phantoms, args)
        elapsed, memory = run(Path(folder), args)
        after = floors(phantoms, args)
    read, network = (statistics.mean(pair) for pair in zip(before, after, strict=True))
    floor = args.scans * read + nodules * network
    print(f"{args.scans} scans ({len(phantoms)} different ones), {nodules} nodules")
    print(f"floors   {read:.3f} s per CT, {network:.3f} s per nodule (before and after: {before}, {after})")
    print(f"run      {elapsed:.1f} s, {args.scans / elapsed:.3f} scans/s; sum of the floors {floor:.1f} s")
    print(f"         {floor / elapsed:.1%} of the floors' throughput")
    print(f"memory   peaks of the quarters: {', '.join(f'{mb:.0f}' for mb in memory)} MB")
    content = {"scans": args.scans, "different_scans": len(phantoms), "nodules": nodules, "seconds": elapsed}
    content |= {"read_seconds": read, "network_seconds": network, "of_floors": floor / elapsed, "peak_mb": memory}
    record("cohort", content)


def multiply(phantoms: list[Scan], count: int, folder: Path) -> int:
    """Make a folder in LUNA25's layout with ``count`` scans, and return its number of nodules."""
    (folder / "ct").mkdir(parents=True)
    rows = []
    for number, scan in enumerate(islice(cycle(phantoms), count)):
        (folder / "ct" / f"{number}.mha").hardlink_to(scan.path)
        rows += [
            (number, f"{number}_{nodule.name}", *nodule.point, label)
            for nodule, label in zip(scan.points, scan.labels, strict=True)
        ]
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *rows])
    return len(rows)


def floors(phantoms: list[Scan], args: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds for reading one CT, and for one nodule's network, with all cores at work."""
    cores = available_cores()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        paths = list(islice(cycle(scan.path for scan in phantoms), max(_READS * cores, len(phantoms))))
        list(pool.map(_read, paths[:cores], chunksize=1))  # imports, and the page cache
        start = time.perf_counter()
        list(pool.map(_read, paths, chunksize=1))
        read = (time.perf_counter() - start) / len(paths)
    ensemble = Ensemble.load(args.resources, precision=args.precision)
    probes = probe_patches()[[0] * _PROBES]
    ensemble.member_probabilities(probes[:1])  # the first pass allocates memory
    start = time.perf_counter()
    ensemble.member_probabilities(probes)
    return read, (time.perf_counter() - start) / len(probes)


def _read(path: Path) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    read_volume(path)


def run(folder: Path, args: argparse.Namespace) -> tuple[float, list[float]]:
    """Return the seconds of the command, and the peak of its memory in MB in each quarter of that time."""
    command = [sys.executable, "-m", "nodulemc.cli", "cohort", folder / "cohort", "--output", folder / "out"]
    command += ["--resources", args.resources.resolve(), "--precision", args.precision]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)))
    samples = []
    while process.poll() is None:
        samples.append(sum(map(_resident_mb, _family(process.pid))))
        time.sleep(_SAMPLE_S)
    elapsed = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    size = -(-len(samples) // _QUARTERS)
    return elapsed, [max(samples[k : k + size]) for k in range(0, len(samples), size)]


def _family(process: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = Path(f"/proc/{process}/task").glob("*/children")
        below = [int(child) for file in children for child in file.read_text().split()]
    except OSError:
        below = []
    return [process, *(one for child in below for one in _family(child))]


def _resident_mb(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    main()
