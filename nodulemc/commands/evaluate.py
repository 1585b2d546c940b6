"""Metrics with confidence intervals and a report, from predictions or from an ensemble and a block store.

Writes metrics.json and report.html; where an ensemble predicts, predictions.csv too. Predictions are CSV files
(AnnotationID, label, probability, optional PatientID, fold and seed_... columns) or one folder of Grand-Challenge's
output JSON. Without them the ensemble predicts the nodules of --store; beside them --resources DIR is the ensemble that
made them, so that nodules of scans and patients that it was trained on are told apart.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodulemc.errors import ConfigError
from nodulemc.options import add_bootstrap_option, add_ensemble_options, load_ensemble, require_inputs
from nodulemc.util.extras import check_extra
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.ensemble.trained_cases import TrainedCases
    from nodulemc.evaluation.predictions import Predictions
    from nodulemc.evaluation.stored_nodules import StoredNodules

logger = logging.getLogger(__name__)

EXAMPLE = "nodulemc evaluate predictions.csv --table table.csv --output evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("predictions", type=Path, nargs="*", metavar="PREDICTIONS", help="CSV files, or one folder")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="TABLE.csv",
        help="the study's nodules: AnnotationID and label, and for patients and subgroups PatientID, "
        "Age_at_StudyDate, Gender, diameter_mm, readers' ratings (default: the store's table, if any)",
    )
    parser.add_argument("--store", type=Path, metavar="STORE", help="block store: nodules to predict, or for pictures")
    parser.add_argument(
        "--scores",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of the predictions or the table that rank nodules, such as brock_full, mayo, long_axis_mm or "
        "diameter_mm: their AUC beside the network's",
    )
    add_bootstrap_option(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate, write the results and print the main figures."""
    check_extra("report")
    if args.store:
        check_extra("train", "pyarrow")
    from nodulemc.evaluation.attributes import attribute_figures
    from nodulemc.evaluation.metrics import evaluate
    from nodulemc.evaluation.origin import in_words
    from nodulemc.evaluation.predictions import read_table
    from nodulemc.evaluation.report import render_report
    from nodulemc.evaluation.submission import read_submission
    from nodulemc.evaluation.training_cases import in_words as seen_in_words
    from nodulemc.util.files import make_folder, write_atomically
    from nodulemc.util.json_files import write_json_atomically

    if not args.predictions and not args.store:
        raise ConfigError("nothing to evaluate", "evaluate", "give PREDICTIONS, or --store for the ensemble to predict")
    require_inputs(*args.predictions, args.table)
    stored = _open_store(args.store) if args.store else None
    table = read_table(args.table) if args.table else stored.table if stored else None
    make_folder(args.output)
    paths, cases = args.predictions, None
    if stored and not paths:
        ensemble = load_ensemble(args)
        paths, cases = [args.output / "predictions.csv"], ensemble.trained_cases
        stored.predict(ensemble, paths[0])
    submission = read_submission(paths, table)
    if args.predictions and args.resources:
        cases = _cases_of(args.resources, submission.predictions)
    for problem, names in submission.problems.items():
        if names:
            logger.warning("%d %s: %s%s", len(names), problem, ", ".join(names[:5]), ", ..." * (len(names) > 5))
    attributes = attribute_figures(submission.rows, table, args.bootstrap)
    evaluation = evaluate(submission, args.bootstrap, cases, attributes=attributes, scores=args.scores)
    if seen := seen_in_words(evaluation.metrics):
        logger.warning("%s", seen)
    write_json_atomically(args.output / "metrics.json", evaluation.metrics)
    note = "; ".join(map(in_words, evaluation.metrics["ensembles"]))
    page = render_report(evaluation, stored.patch if stored else lambda _: None, note and f"Predicted by {note}.")
    write_atomically(args.output / "report.html", page.encode())
    print(_summary(evaluation.metrics, note))
    print(f"written: {args.output / 'report.html'}, {args.output / 'metrics.json'}")


def _open_store(folder: Path) -> StoredNodules:
    from nodulemc.evaluation.stored_nodules import (
        StoredNodules,  # needs torch, which is slow to import and needed nowhere else here
    )

    return StoredNodules(folder)


def _cases_of(folder: Path, predictions: Predictions) -> TrainedCases | None:
    """Return the training cases of the ensemble that made the predictions. Warn if they are not known."""
    from nodulemc.ensemble.manifest import read_manifest
    from nodulemc.ensemble.trained_cases import FILE_NAME, read_trained_cases
    from nodulemc.evaluation.origin import ensembles

    manifest = read_manifest(folder)
    if any(made["sha256"] not in (None, manifest.sha256) for made in ensembles(predictions)):
        logger.warning("%s: not the ensemble, or not the calibration, that the predictions name", folder)
    cases = read_trained_cases(manifest)
    if cases is None:
        logger.warning("%s: no %s, so it is not known what it was trained on", manifest.folder, FILE_NAME)
    return cases


def _summary(metrics: dict[str, Any], origin: str) -> str:
    lines = [f"{counted(metrics['nodules'], 'nodule')}, {metrics['malignant']} malignant"]
    if origin:
        lines.append(f"predicted by {origin}")
    if metrics["caution"]:
        lines.append(f"caution: {metrics['caution']}")
    figures = {name: (metrics[name], metrics[f"{name}_ci95"]) for name in ("auc", "average_precision", "brier")}
    for kind in ("sensitivity_at_specificity", "specificity_at_sensitivity"):
        figures |= {f"{kind} {point}": (f["value"], f["ci95"]) for point, f in metrics[kind].items()}
    for name, (value, interval) in figures.items():
        words = "" if interval is None else f"  ({interval[0]:.4f} to {interval[1]:.4f})"
        lines.append(f"{name.replace('_', ' '):<32}{value:.4f}{words}")
    lines += [_of_attribute(name, found) for name, found in metrics["attributes"].items()]
    lines += [_of_score(name, found) for name, found in metrics["scores"].items()]
    return "\n".join(lines)


def _of_attribute(name: str, found: dict[str, Any]) -> str:
    """Describe an attribute's rank correlation and mean error, in whole numbers, and between two readers, if known."""
    sides = {"": found, "; in whole numbers ": found["whole"], "; two readers ": found["readers"] or {}}
    words = (
        f"{words}{side['spearman']:.3f}, mean error {side['mae']:.3f}"
        for words, side in sides.items()
        if side.get("spearman") is not None
    )
    return f"{name + ', rank correlation':<32}{''.join(words) or 'none: one value only'}"


def _of_score(name: str, found: dict[str, Any]) -> str:
    """Describe a score's AUC, the network's on the same nodules, and the difference."""
    nodules = counted(found["nodules"], "nodule")
    if found["auc"] is None:
        return f"{'auc of ' + name:<32}none: {nodules} with it, of one class"
    low, high = found["difference_ci95"] or (math.nan, math.nan)
    by = f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"{'auc of ' + name:<32}{found['auc']:.4f}  network on the same {nodules} {found['network_auc']:.4f}, {by}"
