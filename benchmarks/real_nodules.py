"""What ensembles reach on real nodules: LIDC-IDRI's, by patients that they were never trained on, beside simple scores.

    python benchmarks/real_nodules.py [--ensemble NAME=DIR ...] [--cubes DIR] [--slabs DIR]

The cubes hold one nodule of each patient with its surroundings (table.csv with LUNA25's columns and the readers' mean
ratings, ct/, masks/). Beside each ensemble and its members stand the largest diameter alone, and logistic regressions
on the readers' ratings, fitted to the slabs' table without the cubes' patients. AUCs have intervals from a bootstrap of
patients; differences are paired. The labels are readers' opinions, not pathology.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nodulemc.ensemble import Ensemble
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.calibration import calibration_figures
from nodulemc.evaluation.weighted_curves import Ranking
from nodulemc.patch import SIZE, VOXEL_MM, extract_patch, patch_origin
from nodulemc.volume import read_volume

DATA = Path("../shared/data/lidc")
RATINGS = ("spiculation", "lobulation", "texture", "margin", "sphericity", "calcification", "subtlety")
MIDDLE_MM = (6, 20)
MANY_READERS = 3
RESAMPLES = 2000
AT_ONCE = 8


def read_table(folder: Path) -> list[dict]:
    """The nodules that have a label."""
    with (folder / "table.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["label"] != ""]


def column(rows: list[dict], name: str) -> np.ndarray:
    """float64 (N,)."""
    return np.array([float(row[name]) for row in rows])


def features(rows: list[dict], *, diameter: bool) -> np.ndarray:
    """The mean ratings, and the diameter where it is asked for, (N, 7 or 8)."""
    return np.stack([column(rows, name) for name in (*RATINGS, *(["diameter_mm"] if diameter else []))], axis=1)


def regression(rows: list[dict], others: list[dict], *, diameter: bool) -> np.ndarray:
    """Probabilities of a logistic regression that was fitted to other patients' nodules."""
    patients = {row["PatientID"] for row in rows}
    fitted = [row for row in others if row["PatientID"] not in patients]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features(fitted, diameter=diameter), column(fitted, "label"))
    return model.predict_proba(features(rows, diameter=diameter))[:, 1]


def points(row: dict) -> list[float]:
    """World x, y, z in mm."""
    return [float(row[name]) for name in ("CoordX", "CoordY", "CoordZ")]


def patches_of(folder: Path, rows: list[dict]) -> np.ndarray:
    """float32 (N, 64, 64, 64)."""
    return np.stack(
        [extract_patch(read_volume(folder / "ct" / f"{row['SeriesInstanceUID']}.mha"), points(row)) for row in rows]
    )


def masks_of(folder: Path, rows: list[dict]) -> Iterator[np.ndarray]:
    """Readers' masks on the patches' grids, by SimpleITK."""
    for row in rows:
        mask = sitk.ReadImage(str(folder / "masks" / f"{row['AnnotationID']}.mha"), sitk.sitkFloat32)
        grid = sitk.ResampleImageFilter()
        grid.SetSize([SIZE] * 3)
        grid.SetOutputSpacing([VOXEL_MM] * 3)
        grid.SetOutputOrigin(patch_origin(points(row)))
        yield sitk.GetArrayFromImage(grid.Execute(mask)) > 0.5


class Judged:
    """Scores of the same nodules beside the diameter's."""

    def __init__(self, rows: list[dict]) -> None:
        self.labels = column(rows, "label").astype(int)
        self.diameters = column(rows, "diameter_mm")
        patients = np.unique([row["PatientID"] for row in rows], return_inverse=True)[1]
        self._bootstrap = PatientBootstrap(patients, RESAMPLES)
        low, high = MIDDLE_MM
        self.groups = {
            "all": np.arange(len(rows)),
            f"{low} to {high} mm": np.flatnonzero((self.diameters >= low) & (self.diameters <= high)),
            f"{MANY_READERS} readers or more": np.flatnonzero(column(rows, "readers") >= MANY_READERS),
        }

    def line(self, name: str, scores: np.ndarray, dice: str = "") -> str:
        """A line of the table."""
        cells = [self._auc(scores, nodules) for nodules in self.groups.values()]
        differences = [self._difference(scores, nodules) for nodules in [*self.groups.values()][:2]]
        return "| " + " | ".join([name, *cells, *differences, self._calibration(scores), dice]) + " |"

    def head(self) -> str:
        """The table's head, with the numbers of nodules."""
        groups = [
            f"AUC, {name} ({len(nodules)}, {self.labels[nodules].sum()} malignant)"
            for name, nodules in self.groups.items()
        ]
        middle = [*self.groups][1]
        cells = ["", *groups, "minus diameter", f"the same, {middle}", "Brier, ECE", "Dice"]
        return "| " + " | ".join(cells) + " |\n|" + "---|" * len(cells)

    def _resampled(self, scores: np.ndarray, nodules: np.ndarray) -> np.ndarray:
        ranking = Ranking(self.labels[nodules], scores[nodules])
        return self._bootstrap.apply(lambda weights: ranking.curves(weights).auc(), nodules)

    def _auc(self, scores: np.ndarray, nodules: np.ndarray) -> str:
        return _with_interval(
            roc_auc_score(self.labels[nodules], scores[nodules]), self._resampled(scores, nodules), ""
        )

    def _difference(self, scores: np.ndarray, nodules: np.ndarray) -> str:
        labels = self.labels[nodules]
        value = roc_auc_score(labels, scores[nodules]) - roc_auc_score(labels, self.diameters[nodules])
        if scores is self.diameters:
            return ""
        return _with_interval(value, self._resampled(scores, nodules) - self._resampled(self.diameters, nodules), "+")

    def _calibration(self, scores: np.ndarray) -> str:
        if scores.min() < 0 or scores.max() > 1:
            return ""
        figures = calibration_figures(self.labels, scores)
        return f"{figures['brier']:.3f}, {figures['expected_calibration_error']:.3f}"


def _with_interval(value: float, resampled: np.ndarray, sign: str) -> str:
    low, high = interval95(resampled)
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def dice(folder: Path, rows: list[dict], probabilities: np.ndarray) -> str:
    """Mean and median over nodules of the thresholded masks' Dice with the reader's."""
    values = []
    for truth, probability in zip(masks_of(folder, rows), probabilities, strict=True):
        mask = probability > 0.5
        values.append(2 * (truth & mask).sum() / (truth.sum() + mask.sum()))
    return f"{np.mean(values):.3f}, median {np.median(values):.3f}"


def in_portions(work: Callable, patches: np.ndarray) -> np.ndarray:
    """What an ensemble gives for all patches, some at a time."""
    return np.concatenate([work(patches[k : k + AT_ONCE]) for k in range(0, len(patches), AT_ONCE)])


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ensemble", action="append", default=[], metavar="NAME=DIR", help="default: the packaged one")
    parser.add_argument("--cubes", type=Path, default=DATA / "cubes", metavar="DIR", help="nodules to judge by")
    parser.add_argument("--slabs", type=Path, default=DATA / "slabs", metavar="DIR", help="nodules to fit ratings to")
    args = parser.parse_args()
    missing = [folder for folder in (args.cubes, args.slabs) if not (folder / "table.csv").is_file()]
    if missing:
        print(f"no table.csv in {missing[0]}: nothing is judged", file=sys.stderr)
        return 2
    rows, others = read_table(args.cubes), read_table(args.slabs)
    patches, judged = patches_of(args.cubes, rows), Judged(rows)
    print(judged.head())
    print(judged.line("largest diameter", judged.diameters))
    print(judged.line("readers' ratings", regression(rows, others, diameter=False)))
    print(judged.line("readers' ratings and diameter", regression(rows, others, diameter=True)), flush=True)
    for named in args.ensemble or ["shipped=resources"]:
        name, _, folder = named.rpartition("=")
        ensemble = Ensemble.load(folder)
        per_member = in_portions(ensemble.seed_probabilities, patches)
        for member, scores in zip(ensemble.manifest.seed_names, per_member.T, strict=True):
            print(judged.line(f"{name}, {member}", scores))
        masks = in_portions(Ensemble.load(folder, masks=True).mask_probabilities, patches)
        print(judged.line(f"{name}, vote", ensemble.vote(per_member), dice(args.cubes, rows, masks)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
