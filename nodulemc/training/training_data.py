"""Joining a block store and a split: the blocks to train on, and those to validate on."""

from pathlib import Path
from typing import Any

from nodulemc.columns import PATIENT, SOURCE_UID, UID
from nodulemc.data.block_store import BlockStore
from nodulemc.ensemble.trained_cases import TrainedCase
from nodulemc.errors import ConfigError, TableError
from nodulemc.training.trainer import TrainingData
from nodulemc.util.json_files import read_json
from nodulemc.util.text import counted


def load_training_data(store: Path, split: Path, fold: int | None = None) -> TrainingData:
    """Open a block store and find the split's samples in it.

    Args:
        store: The folder made by `nodulemc prepare`.
        split: The file made by `nodulemc split`: ``{"train": [...], "validation": [...]}`` or ``{"folds": [...]}``, all
            lists of AnnotationIDs. The validation may be empty, the fold may not.
        fold: The fold to validate on, from 0; the others train. None for a split without folds.

    Raises:
        FileError: the split cannot be read or is no JSON.
        TableError: the split is malformed, names samples that the store does not have, has a patient on both sides, or
            has a sample without a mask. Or one class is missing from the training side, or validation has only
            undecided samples.
        ConfigError: a fold is missing, not in the split, or given for a split without folds.
    """
    blocks = BlockStore(store)
    numbers = {row["AnnotationID"]: k for k, row in enumerate(blocks.table)}
    train, validation = ([*map(str, side)] for side in _sides(read_json(split), split, fold))
    missing = [identifier for identifier in train + validation if identifier not in numbers]
    if missing:
        raise TableError(
            f"{counted(len(missing), 'sample')} not in the store, first {', '.join(missing[:5])}",
            split,
            f"split the table of the store {store} again",
        )
    sides = [[numbers[identifier] for identifier in side] for side in (train, validation)]
    shared = set.intersection(*({blocks.table[k]["PatientID"] for k in side} for side in sides))
    if shared:
        raise TableError(f"patient {min(shared)} is on both sides", split, "split by patient")
    without_mask = [blocks.table[k]["AnnotationID"] for side in sides for k in side if blocks[k].mask is None]
    if without_mask:
        raise TableError(
            f"{counted(len(without_mask), 'sample')} without a mask, first {without_mask[0]}",
            split,
            "leave them out of the split",
        )
    labels = [row["label"] for row in blocks.table]
    if {0, 1} - {labels[k] for k in sides[0]}:
        raise TableError("the training side lacks a class", split, "split again")
    if sides[1] and all(labels[k] is None for k in sides[1]):
        raise TableError("all samples of the validation side are undecided", split, "split again")
    return TrainingData(blocks, labels, *sides)


def training_cases(data: TrainingData) -> frozenset[TrainedCase]:
    """Return the scans of the training side, which gives the gradients. For a cut-out, return its original scan."""
    rows = (data.store.table[k] for k in data.train)
    return frozenset(TrainedCase(row.get(SOURCE_UID) or row[UID], row[PATIENT]) for row in rows)


def _sides(content: Any, path: Path, fold: int | None) -> tuple[list[Any], list[Any]]:
    if not isinstance(content, dict):
        content = {}
    if isinstance(content.get("folds"), list):
        folds = content["folds"]
        if fold is None or not 0 <= fold < len(folds):
            raise ConfigError(f"--fold is {fold}", path, f"the split has folds; give one from 0 to {len(folds) - 1}")
        if not folds[fold]:
            raise TableError(
                f"fold {fold} is empty", path, "split again, or train on all with an empty validation list"
            )
        return [i for k, ids in enumerate(folds) if k != fold for i in ids], folds[fold]
    if fold is not None:
        raise ConfigError(f"--fold is {fold}", path, "the split has no folds; leave --fold out")
    train, validation = content.get("train"), content.get("validation")
    if not isinstance(train, list) or not isinstance(validation, list):
        raise TableError("no lists of train and validation samples", path, "make it with `nodulemc split`")
    return train, validation
