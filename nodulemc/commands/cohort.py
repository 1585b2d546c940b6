"""Score the nodules of many scans: resumable at any moment, bad scans set aside, on one machine or on a Ray cluster.

MANIFEST is a CSV or Parquet file with a column ct (file or DICOM folder) and either one row per nodule (CoordX, CoordY,
CoordZ, optional AnnotationID) or one row per scan with a column points (a points file, as for `predict`), both with
optional label and PatientID; or a folder with table.csv and, in ct, <SeriesInstanceUID>.mha or DICOM series at any
depth. DIR gets predictions.csv, predictions.parquet and failures.csv. The same command continues where it has stopped.
Exit code 3: some scans have failed or are yet to be done. More: docs/cohort.md.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodulemc.ensemble.manifest import find_resources, read_manifest
from nodulemc.errors import ConfigError, EnsembleError
from nodulemc.hardware import available_cores
from nodulemc.option_types import WORKERS, UnusableValueError
from nodulemc.options import add_calibrated_option, add_ensemble_options, add_measure_option
from nodulemc.report.files import LIBRARIES
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.cohort.clinical import Clinical
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.pages import Pages
    from nodulemc.cohort.run import Engine, Shard
    from nodulemc.cohort.scan import Scan
    from nodulemc.ensemble.manifest import EnsembleManifest

logger = logging.getLogger(__name__)

EXAMPLE = "nodulemc cohort phantoms --output scored"
EXIT_PARTIAL = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=".csv or .parquet file, or folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for results and progress")
    parser.add_argument(
        "--json", action="store_true", help="also write Grand-Challenge's JSON of each scan, into DIR/json"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="also make a page for each scan, and DIR/index.html, which sorts and filters them (docs/report.md); "
        "implies --measure where the ensemble has decoders",
    )
    add_measure_option(parser)
    parser.add_argument(
        "--clinical",
        type=Path,
        metavar="FILE",
        help="also give the risk by the Brock, Mayo and Herder models and Lung-RADS: .csv or .parquet with rows for "
        "patients, scans or nodules, as age and type (docs/cohort.md); implies --measure",
    )
    parser.add_argument("--retry-failed", action="store_true", help="also do the scans that have failed before")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only every N-th scan from the I-th on (1/N to N/N), for arrays of cluster jobs",
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: local, this machine")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster (default: $RAY_ADDRESS, else this machine)"
    )
    parser.add_argument(
        "--workers", type=WORKERS, metavar="N", help="reading processes of the local engine (default: one per CPU)"
    )
    add_calibrated_option(parser)
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score the remaining scans, export, and print the outcome."""
    from nodulemc.cohort.export import export, written
    from nodulemc.cohort.manifest import read_cohort_manifest
    from nodulemc.cohort.run import Task, run_cohort
    from nodulemc.cohort.summary import summary
    from nodulemc.ensemble.trained_cases import read_trained_cases

    _check_engine_options(args)
    check_extra("cohort")
    if args.engine == "ray":
        check_extra("ray")
    if args.report:
        check_extra("report", *LIBRARIES)
    scans = read_cohort_manifest(args.manifest)
    clinical = _clinical(args, scans) if args.clinical else None
    manifest = read_manifest((args.resources or find_resources()).resolve())
    measures = _measures(args, manifest)
    make_folder(args.output)
    trained_cases = read_trained_cases(manifest)
    with _engine(args, manifest, measures=measures) as (engine, device, ensemble):
        origin = manifest, device, ensemble.precision, args.calibrated
        pages = _pages(args.report, scans, *origin) if args.report else None
        task = Task(
            scans, args.manifest, args.output, ensemble, args.shard, args.retry_failed, trained_cases, pages, clinical
        )
        run_cohort(task, engine)
    state = export(args.output, args.output, json=args.json)
    print(f"{summary(state)}\n{written(args.output, json=args.json)}")
    if args.report:
        _write_index(args)
    own = {scan.name for scan in task.own_scans()}
    return EXIT_PARTIAL if own & state.without_result else 0


def _measures(args: argparse.Namespace, manifest: EnsembleManifest) -> bool:
    """Return whether nodules are measured.

    Raises:
        EnsembleError: measuring is asked for, and no member has a decoder.
    """
    asked = args.measure or args.clinical is not None
    if asked and not manifest.segments:
        remedy = "use an ensemble saved with one, or leave out --measure and --clinical"
        raise EnsembleError("no member has a decoder, so nothing can be measured", manifest.folder, remedy)
    return asked or (args.report is not None and manifest.segments)


def _clinical(args: argparse.Namespace, scans: Sequence[Scan]) -> dict[str, Clinical]:
    """Return the clinical facts about the scans, and print for how many scans there are none."""
    from nodulemc.cohort.clinical import read_clinical_table

    found = read_clinical_table(args.clinical).of_all(scans)
    unknown = sum(not clinical.patient and not clinical.nodules for clinical in found.values())
    if unknown:
        logger.warning("%s: nothing of %d of %s", args.clinical, unknown, counted(len(found), "scan"))
    return found


@contextmanager
def _engine(
    args: argparse.Namespace, manifest: EnsembleManifest, *, measures: bool
) -> Iterator[tuple[Engine, str, Identity]]:
    """Yield the engine that the options ask for, its device, and the identity of the scoring ensemble."""
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.local_engine import LocalEngine
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.ensemble.precision import choose_device, choose_precision

    load = partial(Ensemble.load, manifest.folder, masks=measures, calibrated=args.calibrated)
    identity = partial(Identity.of, manifest, calibrated=args.calibrated, measures=measures)
    if args.engine == "ray":
        from nodulemc.cohort.ray_engine import RayEngine

        with closing(RayEngine(load, device=args.device, precision=args.precision, address=args.address)) as engine:
            yield engine, engine.device, identity(engine.precision)
        return
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device, manifest)
    load = partial(load, device=device, precision=precision)
    yield LocalEngine(load, args.workers or available_cores()), device, identity(precision)


def _pages(folder: Path, scans: Sequence[Scan], *origin: Any) -> Pages:
    from nodulemc.cohort.pages import Pages
    from nodulemc.report.page import Origin

    return Pages(folder, [scan.name for scan in scans], Origin(*origin))


def _write_index(args: argparse.Namespace) -> None:
    from nodulemc.cohort.pages import INDEX_NAME, write_index

    missing = write_index(args.report, args.output)
    without = f"; {counted(missing, 'result')} without a page: run again" if missing else ""
    print(f"written: {args.report / INDEX_NAME}{without}")


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UnusableValueError("I/N with I from 1 to N, for example 1/8")
    return int(match[1]), int(match[2])


def _check_engine_options(args: argparse.Namespace) -> None:
    foreign = "--address" if args.engine == "local" and args.address else None
    if args.engine == "ray" and args.workers:
        foreign = "--workers"
    if foreign:
        raise ConfigError(f"{foreign} with --engine {args.engine}", "nodulemc cohort", "leave it out")
