"""Made-up predictions for the tests of the evaluation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nodulemc.evaluation.predictions import Predictions, assemble


def make_predictions(
    nodules: int = 300, patients: int = 80, seed: int = 0, *, ties: bool = True, seeds: int = 0
) -> Predictions:
    """Fair predictions, several nodules a patient; with ties where asked for."""
    random = np.random.default_rng(seed)
    of_patient = random.normal(size=patients)
    patient = np.sort(random.integers(patients, size=nodules))
    labels = (of_patient[patient] + random.normal(size=nodules) > 1.2).astype(int)
    score = 1.2 * labels + 0.8 * of_patient[patient] + random.normal(size=nodules) - 1
    probabilities = 1 / (1 + np.exp(-score))
    if ties:
        probabilities = probabilities.round(2)
    sexes, bands = ("Female", "Male"), random.integers(52, 78, size=nodules)
    return assemble(
        ids=[f"{100000 + p}_{k}_19990102" for k, p in enumerate(patient)],
        probabilities=probabilities,
        columns=[
            {
                "label": str(label),
                "PatientID": str(100000 + p),
                "Gender": sexes[p % 2],
                "Age_at_StudyDate": str(age),
                "diameter_mm": f"{diameter:.2f}",
            }
            for label, p, age, diameter in zip(labels, patient, bands, random.uniform(4, 20, nodules), strict=True)
        ],
        seeds={f"seed_{k}": np.clip(probabilities + random.normal(0, 0.05, nodules), 0, 1) for k in range(seeds)},
        folds=[str(p % 3 + 1) for p in patient],
        source="samples",
    )


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a table."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_predictions(path: Path, predictions: Predictions) -> Path:
    """Write predictions as CSV: AnnotationID, label, probability, fold and seeds."""
    rows = zip(
        predictions.ids,
        predictions.labels.tolist(),
        predictions.probabilities.tolist(),
        predictions.folds or [],
        *(values.tolist() for values in predictions.seeds.values()),
        strict=True,
    )
    return write_csv(path, ["AnnotationID", "label", "probability", "fold", *predictions.seeds], list(rows))


def write_table(path: Path, predictions: Predictions) -> Path:
    """Write the nodules' table."""
    header = list(predictions.columns[0])
    rows = [[name, *cells.values()] for name, cells in zip(predictions.ids, predictions.columns, strict=True)]
    return write_csv(path, ["AnnotationID", *header], rows)


def multiple_points(points: Mapping[str, float] | Sequence[tuple[str, float]]) -> dict:
    """Grand-Challenge's output for points (name, probability)."""
    pairs = points.items() if isinstance(points, Mapping) else points
    entries = [{"name": name, "point": [1.0, 2.0, 3.0], "probability": p} for name, p in pairs]
    return {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": entries,
        "version": {"major": 1, "minor": 0},
    }
