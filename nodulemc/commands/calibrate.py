"""Fit a calibration map to validation predictions and store it in an ensemble, to be applied when asked for.

Give predictions for nodules that the ensemble was not trained on. The order of nodules, and with it the AUC, stays.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from nodulemc.ensemble.calibration import METHODS
from nodulemc.errors import TableError
from nodulemc.options import require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder
from nodulemc.util.text import counted

logger = logging.getLogger(__name__)

EXAMPLE = "nodulemc calibrate validation.csv --method platt --prevalence 0.09 --resources my_ensemble"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("predictions", type=Path, nargs="+", metavar="PREDICTIONS", help="CSVs, as for `evaluate`")
    parser.add_argument("--table", type=Path, metavar="TABLE.csv", help="labels and patients, as for `evaluate`")
    parser.add_argument("--method", choices=METHODS, required=True, help="temperature and platt suit small sets")
    parser.add_argument(
        "--prevalence",
        type=float,
        metavar="SHARE",
        help="share of malignant nodules where the probabilities will be used (default: as in PREDICTIONS)",
    )
    parser.add_argument(
        "--training-prevalence",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of malignant samples in training (default: 0.5, classes drawn evenly)",
    )
    parser.add_argument(
        "--resources", type=Path, required=True, metavar="DIR", help="ensemble folder whose ensemble.json gets the map"
    )


def run(args: argparse.Namespace) -> None:
    """Fit, show the effect on patients left out of the fit, and store."""
    check_extra("report")
    from nodulemc.ensemble.manifest import FILE_NAME, read_manifest, write_manifest
    from nodulemc.ensemble.trained_cases import read_trained_cases
    from nodulemc.evaluation.fit_calibration import calibration_figures, fit_calibration, held_out
    from nodulemc.evaluation.predictions import read_predictions, read_table
    from nodulemc.evaluation.training_cases import is_seen, seen_in_training

    require_inputs(*args.predictions, args.table)
    manifest = read_manifest(args.resources)
    make_folder(args.resources)
    predictions = read_predictions(args.predictions, read_table(args.table) if args.table else None)
    if any(cells.get("calibration") for cells in predictions.columns):
        raise TableError(
            "the probabilities are calibrated already",
            predictions.source,
            "fit on uncalibrated ones: score without --calibrated, or make the column uncalibrated the probability",
        )
    seen = is_seen(seen_in_training(predictions, read_trained_cases(manifest)))
    if seen.any():
        what = f"{seen.sum()} of {counted(len(predictions), 'nodule')}"
        logger.warning("%s: %s are of patients that the ensemble was trained on", predictions.source, what)
    calibration = fit_calibration(
        predictions, args.method, training_prevalence=args.training_prevalence, prevalence=args.prevalence
    )
    calibrated = held_out(predictions, args.method, training_prevalence=args.training_prevalence)
    nodules = counted(len(predictions), "nodule")
    print(f"{nodules}, {predictions.labels.sum()} malignant; calibrated: patients left out of the fit")
    print(f"{'':<14}{'Brier':>8}{'log loss':>10}{'ECE':>8}")
    for name, probabilities in (("uncalibrated", predictions.probabilities), ("calibrated", calibrated)):
        brier, loss, error = calibration_figures(predictions.labels, probabilities).values()
        print(f"{name:<14}{brier:>8.4f}{loss:>10.4f}{error:>8.4f}")
    folder = manifest.folder or args.resources
    write_manifest(folder, replace(manifest, calibration=calibration))
    print(f"written: {folder / FILE_NAME}, for a prevalence of {calibration['prevalence']:.3g}")
