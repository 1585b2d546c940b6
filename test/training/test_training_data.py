import json
from dataclasses import replace

import numpy as np
import pytest

from nodulemc.data.block_store import BlockStore, BlockWriter, NoduleBlock
from nodulemc.ensemble.trained_cases import TrainedCase
from nodulemc.errors import ConfigError, NoduleMCError, TableError
from nodulemc.training.training_data import load_training_data, training_cases

PATIENTS = ["p1", "p1", "p2", "p3", "p4", "p5"]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    with BlockWriter(folder) as writer:
        for k, patient in enumerate(PATIENTS):
            voxels = np.full((3, 4, 5), k, np.int16)
            row = {"PatientID": patient, "SeriesInstanceUID": f"1.{k}", "AnnotationID": f"a{k}", "label": k % 2}
            row |= {"CoordX": 1.0, "CoordY": 2.0, "CoordZ": 3.0}
            mask = None if k == 5 else np.ones(voxels.shape, np.uint8)
            box = (np.full(3, -np.inf), np.full(3, np.inf))
            writer.add(NoduleBlock(voxels, mask, np.zeros(3), np.eye(3), np.array([1.0, 2, 3]), box, row))
    return folder


@pytest.fixture
def undecided(store):
    """A store of two nodules more, undecided ones with a rating or without."""
    ratings = {"readers": 4, "texture": 4.5}, {"readers": "", "texture": None}
    rows = [row | extra for row, extra in zip(BlockStore(store).table, [ratings[0]] * 5 + [ratings[1]], strict=True)]
    folder = store.parent / "more"
    with BlockWriter(folder) as writer:
        for k, row in enumerate(rows):
            block = BlockStore(store)[0]
            writer.add(replace(block, row=row | {"label": None if k in (0, 2) else row["label"]}))
    return folder


def load(store, content, fold=None):
    path = store.parent / "split.json"
    path.write_text(json.dumps(content))
    return load_training_data(store, path, fold)


def test_the_splits_samples_are_found_in_the_store(store):
    data = load(store, {"train": ["a3", "a0", "a1"], "validation": ["a2", "a4"]})
    assert (data.train, data.validation) == ([3, 0, 1], [2, 4])
    assert list(data.labels) == [0, 1, 0, 1, 0, 1]
    assert data.store[3].voxels[0, 0, 0] == 3


def test_a_cut_out_counts_as_the_scan_it_was_cut_from(store):
    data = load(store, {"train": ["a3", "a0", "a1"], "validation": []})
    assert training_cases(data) == {TrainedCase("1.0", "p1"), TrainedCase("1.1", "p1"), TrainedCase("1.3", "p3")}
    data.store.table[0]["source_series_uid"], data.store.table[1]["source_series_uid"] = "9.9", ""
    assert training_cases(data) == {TrainedCase("9.9", "p1"), TrainedCase("1.1", "p1"), TrainedCase("1.3", "p3")}


def test_a_fold_is_validated_on_while_the_others_train(store):
    folds = {"folds": [["a0", "a1"], ["a2"], ["a3", "a4"]]}
    data = load(store, folds, 1)
    assert (data.train, data.validation) == ([0, 1, 3, 4], [2])


def test_the_validation_side_may_be_empty(store):
    data = load(store, {"train": ["a0", "a1", "a2", "a3", "a4"], "validation": []})
    assert (data.train, data.validation) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize(
    ("content", "fold", "error", "message"),
    [
        ({"train": ["a1", "a0", "zz"], "validation": ["a2"]}, None, TableError, "1 sample not in .* first zz"),
        ({"train": ["a0", "a3"], "validation": ["a1"]}, None, TableError, "patient p1 is on both sides"),
        ({"train": ["a0", "a3"], "validation": ["a5"]}, None, TableError, "1 sample without a mask, first a5"),
        ({"train": ["a0", "a2"], "validation": ["a3"]}, None, TableError, "lacks a class"),
        ({"folds": [["a0", "a1"], []]}, 1, TableError, "fold 1 is empty"),
        ({"train": ["a0", "a1"]}, None, TableError, "no lists of train and validation"),
        ([1], None, TableError, "no lists of train and validation"),
        ({"folds": [["a0", "a1"], ["a2"]]}, None, ConfigError, "--fold is None.*from 0 to 1"),
        ({"folds": [["a0", "a1"], ["a2"]]}, 2, ConfigError, "--fold is 2"),
        ({"train": ["a0", "a1"], "validation": ["a2"]}, 0, ConfigError, "has no folds"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(store, content, fold, error, message):
    with pytest.raises(error, match=message) as caught:
        load(store, content, fold)
    assert isinstance(caught.value, NoduleMCError)
    assert "split.json" in str(caught.value)


def test_undecided_samples_and_ratings_come_back(undecided):
    data = load(undecided, {"train": ["a0", "a1", "a2", "a3", "a4"], "validation": []})
    assert list(data.labels) == [None, 1, None, 1, 0, 1]
    rows = data.store.table
    assert [(row["readers"], row["texture"]) for row in rows] == [(4.0, 4.5)] * 5 + [(None, None)]
    with pytest.raises(TableError, match=r"all samples of the validation side are undecided.*split again"):
        load(undecided, {"train": ["a3", "a4"], "validation": ["a2"]})
    with pytest.raises(TableError, match="the training side lacks a class"):
        load(undecided, {"train": ["a0", "a1"], "validation": []})
