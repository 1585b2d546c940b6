"""Evaluate an ensemble on phantoms it has not seen: OUTPUT/store, predictions.csv, metrics.json, report.html, table.md.

Nodules are drawn only with their surroundings, not as whole CTs. They are kept, so that a stopped run can be repeated.
table.md compares the ensemble with the best reachable AUC, the diameter alone, its single seeds and, if given, an
ensemble trained without the segmentation task. It uses the AUC on the labels and its expectation over their drawing.

    .venv/bin/python scripts/phantom_report.py OUTPUT --patients 460 --seed 25 --resources resources
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from nodulemc import cli
from nodulemc.arrays import Array
from nodulemc.columns import SEED_PREFIX
from nodulemc.data.block_store import BlockStore
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import read_manifest
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.stored_nodules import StoredNodules
from nodulemc.evaluation.weighted_curves import Ranking
from nodulemc.options import RESAMPLES
from nodulemc.phantom.malignancy import expected_auc
from nodulemc.program import exit_code_of
from nodulemc.training.dataset import NoduleDataset, SampleRef
from nodulemc.util.csv_files import read_csv
from nodulemc.util.progress import progress


def main() -> int:
    """Draw the missing nodules, evaluate and compare. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--patients", type=int, default=460, metavar="N", help="default: 460, over 1,000 nodules")
    parser.add_argument("--seed", type=int, default=25, metavar="S", help="not a seed trained on (default: 25)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that draw (default: 1)")
    parser.add_argument("--resources", type=Path, default=Path("resources"), metavar="DIR", help="ensemble folder")
    parser.add_argument("--without-segmentation", type=Path, metavar="DIR", help="ensemble folder to compare with")
    parser.add_argument("--dice", type=int, default=200, metavar="N", help="nodules to segment (default: 200)")
    args = parser.parse_args()
    store = args.output / "store"
    draw = ["phantom", "--blocks", "--output", str(store), "--patients", str(args.patients), "--seed", str(args.seed)]
    evaluate = ["evaluate", "--store", str(store), "--resources", str(args.resources), "--output", str(args.output)]
    return (
        cli.main([*draw, "--workers", str(args.workers)])
        or cli.main(evaluate)
        or exit_code_of(lambda: compare(store, args))
    )


def compare(store: Path, args: argparse.Namespace) -> None:
    """Write and print OUTPUT/table.md."""
    table = BlockStore(store).table
    names = [row["AnnotationID"] for row in table]
    patients = [row["PatientID"] for row in table]
    labels, known, diameters = (
        np.array([row[column] for row in table], float) for column in ("label", "probability", "diameter_mm")
    )
    # The diameter ranks as the regression does, with any coefficients.
    readers = {"best reachable: the known probability": known, "logistic regression on the diameter alone": diameters}
    predictions = read(args.output / "predictions.csv", names)
    seeds = [column for column in predictions if column.startswith(SEED_PREFIX)]
    readers |= {f"seed {column.removeprefix(SEED_PREFIX)}": predictions[column] for column in seeds}
    readers["**ensemble**"] = predictions["probability"]
    if args.without_segmentation:
        path = args.output / "without_segmentation.csv"
        StoredNodules(store).predict(Ensemble.load(args.without_segmentation), path)
        others = ", ".join(read_manifest(args.without_segmentation).member_names)
        readers[f"without the segmentation task ({others})"] = read(path, names)["probability"]
    dice = mean_dice(store, args.resources, args.dice)
    lines = [
        *table_rows(readers, labels, known, patients),
        "",
        f"{len(names)} nodules, {labels.sum():.0f} malignant, of {len(set(patients))} patients. The way "
        f"is that from the diameter to the best, its interval over {RESAMPLES} resamples of patients. The expected AUC "
        "is over all labels that the known probabilities might have drawn. "
        f"Segmentation Dice {dice:.3f}, the mean of {args.dice} nodules.",
    ]
    (args.output / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def table_rows(readers: Mapping[str, Array], labels: Array, known: Array, patients: Sequence[str]) -> list[str]:
    """Return the table's lines, one for each reader. The first is the best reachable, the second the diameter.

    Args:
        readers: (N,) the scores of each reader, by name.
        labels: (N,) 1 for malignant, 0 for benign.
        known: (N,) the known probabilities.
        patients: The N nodules' patients.
    """
    rankings = {name: Ranking(labels, values) for name, values in readers.items()}
    bootstrap = PatientBootstrap(np.unique(patients, return_inverse=True)[1], RESAMPLES)
    resampled = {
        name: bootstrap.apply(lambda weights, ranking=ranking: ranking.curves(weights).auc())
        for name, ranking in rankings.items()
    }
    drawn = of_the_way(resampled)
    on_labels = {name: roc_auc_score(labels, values) for name, values in readers.items()}
    expected = {name: expected_auc(values, known) for name, values in readers.items()}
    on_way, expected_on_way = of_the_way(on_labels), of_the_way(expected)
    lines = ["| | AUC on the labels | of the way | 95 % CI | AUC expected | of the way |", "|---|---|---|---|---|---|"]
    for name in readers:
        # None if most resamples have only one class. The two ends of the way are the same in each resample.
        low, high = interval95(drawn[name]) or (0, 0)
        interval = f"{low:.0%} to {high:.0%}" if low < high else ""
        cells = [f"{on_labels[name]:.4f}", f"{on_way[name]:.0%}", interval, f"{expected[name]:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {expected_on_way[name]:.0%} |")
    return lines


def of_the_way(aucs: dict[str, Any]) -> dict[str, Any]:
    """Return how far each reader is on the way from the diameter, the second one, to the best reachable, the first."""
    best, diameter, *_ = aucs.values()
    return {name: (auc - diameter) / (best - diameter) for name, auc in aucs.items()}


def read(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Return the columns of probabilities of a table of predictions, with the nodules in the order of ``names``."""
    header, rows = read_csv(path)
    by_name = {cells[header.index("AnnotationID")]: cells for _, cells in rows}
    columns = [name for name in header if name == "probability" or name.startswith(SEED_PREFIX)]
    return {name: np.array([by_name[nodule][header.index(name)] for nodule in names], float) for name in columns}


def mean_dice(folder: Path, resources: Path, count: int) -> float:
    """Return the mean Dice of the ensemble's masks at one half, on the patches' grid."""
    store = BlockStore(folder)
    ensemble = Ensemble.load(resources, masks=True)
    samples = NoduleDataset(store, [0] * len(store), None, 0)
    scores = []
    for index in progress(range(count), count, "masks"):
        images, masks = samples[SampleRef(index, 0, 0)].resample()
        found = ensemble.mask_probabilities(images[0].numpy())[0] > 0.5
        truth = masks[0].numpy() > 0
        scores.append(2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1))
    return float(np.mean(scores))


if __name__ == "__main__":
    sys.exit(main())
