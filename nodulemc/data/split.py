"""Dividing nodules into training and validation, always by patient.

A split is ``{"train": [AnnotationID...], "validation": [...]}`` or ``{"folds": [[AnnotationID...], ...]}``. Each fold
is used for validation once while the others train. Undecided samples, those without a label, are on their patient's
side and do not count for the balance.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nodulemc.data.nodule_table import Row
from nodulemc.errors import TableError
from nodulemc.util.text import counted

VALIDATION_SAMPLES = 200


@dataclass(frozen=True)
class Groups:
    """The samples for drawing the validation, a, and the others, b. Rows are in the table's order."""

    a: list[Row]
    b: list[Row]


def draw_groups(rows: Sequence[Row], seed: int) -> Groups:
    """Draw group A, with every malignant sample and as many benign ones, and group B, with the rest.

    Patients stay together, as in the published groups. Benign samples of patients who have a malignant one are in A.
    Benign patients are drawn at random until no further one fits. If patients' numbers of samples do not add up, A has
    slightly fewer benign than malignant samples.

    Source: slides "Nodule Classification using a Multi-Task Training"; the published valid_1-1.csv, train_other.csv.
    """
    counts = _counts(rows)
    chosen = {patient for patient, (_, malignant) in counts.items() if malignant}
    missing = sum(malignant - benign for benign, malignant in (counts[patient] for patient in chosen))
    others = [patient for patient in counts if patient not in chosen]
    chosen |= _draw(others, counts, (missing, 0), np.random.default_rng(seed))
    return _divide(rows, chosen)


def given_groups(rows: Sequence[Row], group_a: Collection[str], group_b: Collection[str], source: object) -> Groups:
    """Return the groups as published. Members that the table lacks, because they have no mask, are skipped.

    Args:
        rows: The table.
        group_a: AnnotationIDs.
        group_b: AnnotationIDs.
        source: The origin of the table, for messages.

    Raises:
        TableError: a sample is in both groups or in neither.
    """
    a, b = set(group_a), set(group_b)
    for row in rows:
        name = row["AnnotationID"]
        if (name in a) == (name in b):
            raise TableError(
                f"{name} is in {'both groups' if name in a else 'neither group'}",
                source,
                "give groups that divide the table",
            )
    return Groups([row for row in rows if row["AnnotationID"] in a], [row for row in rows if row["AnnotationID"] in b])


def split_groups(groups: Groups, samples: int, seed: int, source: object) -> dict[str, list[str]]:
    """Draw validation patients from group A. Everything else trains.

    At most ``samples`` labelled samples are drawn, in A's ratio of classes, and as close to both numbers as patients
    allow. The public code goes on until it has one patient too many. With 0 everything trains. A patient with samples
    in both groups is never drawn, so nothing in B is lost and nobody is on both sides. (The published groups have no
    such patient.)

    Returns:
        ``{"train": [...], "validation": [...]}``, with AnnotationIDs in order A, B.

    Raises:
        TableError: validation would lack a class, or would leave training without one.
    """
    counts = _counts(groups.a)
    benign, malignant = (sum(count[label] for count in counts.values()) for label in (0, 1))
    wanted = round(samples * malignant / max(benign + malignant, 1))
    in_b = {row["PatientID"] for row in groups.b}
    free = [patient for patient in counts if patient not in in_b]
    chosen = _draw(free, counts, (samples - wanted, wanted), np.random.default_rng(seed))
    sides = _divide([*groups.a, *groups.b], chosen)
    for side, name in ((sides.a, "validation"), (sides.b, "training")):
        if {0, 1} - {row["label"] for row in side} and (samples or side is sides.b):
            held = counted(len(side), "sample")
            raise TableError(
                f"with {samples} validation samples the {name} side has {held} and lacks a class",
                source,
                f"group A has {benign} benign and {malignant} malignant samples; validate on another number",
            )
    return {"train": _names(sides.b), "validation": _names(sides.a)}


def split_folds(rows: Sequence[Row], folds: int, seed: int, source: object) -> dict[str, list[list[str]]]:
    """Make stratified folds by patient. Patients with only undecided samples are distributed at random.

    Returns:
        ``{"folds": [...]}``. Each sample's AnnotationID is in exactly one fold, in the table's order.

    Raises:
        TableError: a class has fewer patients than there are folds, or a fold lacks a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labelled = [row for row in rows if row["label"] is not None]
    labels = np.array([row["label"] for row in labelled])
    patients = np.array([row["PatientID"] for row in labelled])
    fewest = min(len(set(patients[labels == label])) for label in (0, 1))
    if fewest < folds:
        raise TableError(f"{folds} folds, but one class has {fewest} patients", source, "use fewer folds")
    kfold = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [part for _, part in kfold.split(labels, labels, patients)]
    if any(len(set(labels[part])) < 2 for part in parts):
        raise TableError(f"one of {folds} folds lacks a class", source, "use fewer folds or another seed")
    fold_of = {patient: fold for fold, part in enumerate(parts) for patient in patients[part].tolist()}
    others = sorted({row["PatientID"] for row in rows} - fold_of.keys())
    dealt = np.random.default_rng(seed).permutation(others).tolist()
    fold_of |= {patient: k % folds for k, patient in enumerate(dealt)}
    return {"folds": [_names(row for row in rows if fold_of[row["PatientID"]] == fold) for fold in range(folds)]}


def _counts(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Return the numbers of benign and malignant samples of each patient with any.

    The patients are sorted, so that the order of the rows does not change the draw.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row["label"] is not None:
            counts[row["PatientID"]][row["label"]] += 1
    return {patient: (benign, malignant) for patient, (benign, malignant) in sorted(counts.items())}


def _draw(
    patients: Sequence[str],
    counts: dict[str, tuple[int, int]],
    room: tuple[int, int],
    random: np.random.Generator,
) -> set[str]:
    """Take patients in random order, if they still fit into the room for benign and for malignant samples.

    Those with malignant samples come first, because their benign ones need room, too.
    """
    order = [patients[number] for number in random.permutation(len(patients))]
    order.sort(key=lambda patient: counts[patient][1] == 0)
    chosen = set()
    left = np.array(room)
    for patient in order:
        if (counts[patient] <= left).all():
            chosen.add(patient)
            left -= counts[patient]
    return chosen


def _divide(rows: Iterable[Row], patients: Collection[str]) -> Groups:
    groups = Groups([], [])
    for row in rows:
        (groups.a if row["PatientID"] in patients else groups.b).append(row)
    return groups


def _names(rows: Iterable[Row]) -> list[str]:
    return [row["AnnotationID"] for row in rows]
