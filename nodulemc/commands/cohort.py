"""Score the nodules of many scans: resumable at any moment, bad scans set aside, on one machine or on a Ray cluster.

MANIFEST is a CSV or Parquet file with a column ct (file or DICOM folder) and either one row per nodule (CoordX, CoordY,
CoordZ, optional AnnotationID) or one row per scan with a column points (a points file, as for `predict`), both with
optional label and PatientID; or a folder with table.csv and, in ct, <SeriesInstanceUID>.mha or DICOM series at any
depth. DIR gets predictions.csv, predictions.parquet and failures.csv. The same command continues where it has stopped.
Exit code 3: some scans have failed or are yet to be done. More: docs/cohort.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.cpu import available_cores
from nodulemc.errors import ConfigError
from nodulemc.extras import check_extra
from nodulemc.json_files import make_folder
from nodulemc.manifest import find_resources, read_manifest
from nodulemc.options import add_ensemble_options
from nodulemc.report.files import LIBRARIES
from nodulemc.words import counted

if TYPE_CHECKING:
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.pages import Pages
    from nodulemc.cohort.run import Engine, Shard
    from nodulemc.cohort.scan import Scan
    from nodulemc.manifest import Manifest

EXAMPLE = "nodulemc cohort phantoms --output scored"
EXIT_PARTIAL = 3
MOST_WORKERS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=".csv or .parquet file, or folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for results and progress")
    parser.add_argument("--json", action="store_true", help="also write one platform JSON per scan, into DIR/json")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="also make a page for each scan, and DIR/index.html, which sorts and filters them (docs/report.md)",
    )
    parser.add_argument("--retry-failed", action="store_true", help="also do the scans that have failed before")
    parser.add_argument(
        "--shard", metavar="I/N", help="only every N-th scan from the I-th on (1/N to N/N), for arrays of cluster jobs"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: local, this machine")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster (default: $RAY_ADDRESS, else this machine)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="reading processes of the local engine (default: one per CPU)"
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="apply the calibration that `nodulemc calibrate` has stored"
    )
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score what is left, export, and say how it went."""
    from nodulemc.cohort.export import export, written
    from nodulemc.cohort.listing import read_listing
    from nodulemc.cohort.run import Task, run_cohort
    from nodulemc.cohort.summary import summary
    from nodulemc.trained_cases import read_trained_cases

    shard = _shard(args.shard) if args.shard else None
    _check_engine_options(args)
    check_extra("cohort")
    if args.engine == "ray":
        check_extra("ray")
    if args.report:
        check_extra("report", *LIBRARIES)
    scans = read_listing(args.manifest)
    make_folder(args.output, ConfigError)
    manifest = read_manifest((args.resources or find_resources()).resolve())
    trained_cases = read_trained_cases(manifest)
    with _engine(args, manifest) as (engine, ensemble):
        pages = _pages(args, manifest, ensemble, scans) if args.report else None
        task = Task(scans, args.manifest, args.output, ensemble, shard, args.retry_failed, trained_cases, pages)
        run_cohort(task, engine)
    state = export(args.output, args.output, json=args.json)
    print(f"{summary(state)}\n{written(args.output, json=args.json)}")
    if args.report:
        _write_index(args)
    own = {scan.name for scan in task.own_scans()}
    return EXIT_PARTIAL if own & state.without_result else 0


@contextmanager
def _engine(args: argparse.Namespace, manifest: Manifest) -> Iterator[tuple[Engine, Identity]]:
    """The engine that the options ask for, and what it scores with."""
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.local_engine import LocalEngine
    from nodulemc.ensemble import Ensemble
    from nodulemc.precision import choose_device, choose_precision

    masks = bool(args.report and manifest.segments)
    load = partial(Ensemble.load, manifest.folder, masks=masks, calibrated=args.calibrated)
    if args.engine == "ray":
        from nodulemc.cohort.ray_engine import RayEngine

        with closing(RayEngine(load, device=args.device, precision=args.precision, address=args.address)) as engine:
            yield engine, Identity.of(manifest, engine.precision, calibrated=args.calibrated)
        return
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device, manifest)
    load = partial(load, device=device, precision=precision)
    engine = LocalEngine(load, args.workers or available_cores(), masks=masks)
    yield engine, Identity.of(manifest, precision, calibrated=args.calibrated)


def _pages(args: argparse.Namespace, manifest: Manifest, ensemble: Identity, scans: Sequence[Scan]) -> Pages:
    from nodulemc.cohort.pages import Pages
    from nodulemc.precision import choose_device
    from nodulemc.report.page import Origin

    origin = Origin(manifest, choose_device(args.device), ensemble.precision, args.calibrated)
    return Pages(args.report, [scan.name for scan in scans], origin)


def _write_index(args: argparse.Namespace) -> None:
    from nodulemc.cohort.pages import INDEX_NAME, write_index

    missing = write_index(args.report, args.output)
    without = f"; {counted(missing, 'result')} without a page: run again" if missing else ""
    print(f"written: {args.report / INDEX_NAME}{without}")


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text}", "nodulemc cohort", "give I/N with I from 1 to N, for example 1/8")
    return int(match[1]), int(match[2])


def _check_engine_options(args: argparse.Namespace) -> None:
    if args.workers is not None and not 1 <= args.workers <= MOST_WORKERS:
        raise ConfigError(f"--workers {args.workers}", "nodulemc cohort", f"give a number from 1 to {MOST_WORKERS}")
    if args.engine == "ray" and args.report:
        raise ConfigError("--report with --engine ray", "nodulemc cohort", "make the pages with --engine local")
    foreign = "--address" if args.engine == "local" and args.address else None
    if args.engine == "ray" and args.workers:
        foreign = "--workers"
    if foreign:
        raise ConfigError(f"{foreign} with --engine {args.engine}", "nodulemc cohort", "leave it out")
