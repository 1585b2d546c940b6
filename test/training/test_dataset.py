from math import prod

import numpy as np
import pytest
import torch
from training.toy_store import ToyStore

from nodulemc.training.config import AugmentationConfig
from nodulemc.training.dataset import (
    BalancedBatchSampler,
    NoduleDataset,
    SampleRef,
    SequentialBatchSampler,
    collate,
    make_loader,
)

LABELS = [1] * 10 + [0] * 190


def batches(**changes) -> BalancedBatchSampler:
    settings = {"batch_size": 8, "samples": 200, "seed": 3} | changes
    return BalancedBatchSampler(range(1000, 1200), LABELS, **settings)


def test_classes_are_drawn_equally_often():
    drawn = np.array([draw.index for batch in batches(samples=8000) for draw in batch]) - 1000
    assert abs((drawn < 10).mean() - 0.5) < 0.02
    counts = np.bincount(drawn, minlength=200)
    assert counts.min() > 0
    assert counts[:10].std() < 3 * np.sqrt(400)  # no malignant sample is favoured


def test_undecided_samples_are_drawn_as_often_as_they_are():
    """50 of 250 samples; malignant and benign ones share the rest equally."""
    labels = [*LABELS, *[None] * 50]
    sampler = BalancedBatchSampler(range(250), labels, batch_size=8, samples=16000, seed=3)
    drawn = np.array([draw.index for batch in sampler for draw in batch])
    shares = [(drawn < 10).mean(), ((drawn >= 10) & (drawn < 200)).mean(), (drawn >= 200).mean()]
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.2], atol=0.015)


def test_epochs_have_whole_batches_of_their_own_and_come_again():
    sampler = batches(samples=201)
    first = list(sampler)
    assert len(sampler) == len(first) == 26
    assert [draw.place for batch in first for draw in batch] == list(range(26 * 8))
    assert list(sampler) == first
    sampler.epoch = 1
    assert [d.index for batch in sampler for d in batch] != [d.index for batch in first for d in batch]
    assert [d.index for b in batches(seed=4) for d in b] != [d.index for b in batches() for d in b]


def test_processes_share_each_batch():
    whole = list(batches())
    parts = [list(batches(process=k, processes=2)) for k in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_ordered_batches_cover_everything_once():
    for processes in (1, 2):
        found = [
            draw.index
            for k in range(processes)
            for batch in SequentialBatchSampler(range(5, 18), batch_size=4, process=k, processes=processes)
            for draw in batch
        ]
        assert sorted(found) == list(range(5, 18))


def test_a_samples_transform_depends_on_seed_epoch_and_place_alone():
    labels = [k % 2 for k in range(6)]
    dataset = NoduleDataset(ToyStore(6), labels, AugmentationConfig(), seed=1)
    one = dataset[SampleRef(2, 3, 4)]
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    torch.testing.assert_close(dataset[SampleRef(2, 3, 4)], one, rtol=0, atol=0)
    others = [
        dataset[SampleRef(2, 3, 5)],
        dataset[SampleRef(2, 4, 4)],
        NoduleDataset(ToyStore(6), labels, AugmentationConfig(), seed=2)[SampleRef(2, 3, 4)],
    ]
    assert not any(torch.equal(one.affines, other.affines) for other in others)
    plain = NoduleDataset(ToyStore(6), labels, None, seed=1)
    assert torch.equal(plain[SampleRef(2, 3, 4)].affines, plain[SampleRef(2, 9, 9)].affines)


def test_batches_cross_as_stored_and_one_after_the_other():
    dataset = NoduleDataset(ToyStore(6), [k % 2 for k in range(6)], None, seed=1)
    samples = [dataset[SampleRef(k, 0, k)] for k in range(3)]
    batch = collate(samples)
    assert batch.voxels.dtype == torch.int16
    assert batch.masks.dtype == torch.uint8
    assert batch.labels.tolist() == [0, 1, 0]
    assert batch.indices.tolist() == [0, 1, 2]
    assert [size for sample in samples for size in sample.sizes] == list(batch.sizes)
    assert len(batch.voxels) == len(batch.masks) == sum(map(prod, batch.sizes))
    for k, part in enumerate(batch.voxels.split([prod(size) for size in batch.sizes])):
        assert torch.equal(part, samples[k].voxels)
    for k, part in enumerate(batch.masks.split([prod(size) for size in batch.sizes])):
        assert torch.equal(part, samples[k].masks)
    assert batch.ratings.shape == (3, 0)
    # Whatever is joined with them, samples are resampled to the same.
    for joined, alone in zip(
        batch.resample(), zip(*(sample.resample() for sample in samples), strict=True), strict=True
    ):
        torch.testing.assert_close(joined, torch.cat(alone), rtol=0, atol=1e-6)


def test_ratings_come_with_their_sample():
    ratings = np.array([[0.25, np.nan], [0.5, 0.75], [np.nan, 1]], np.float32)
    dataset = NoduleDataset(ToyStore(3), [1.0, 0.0, np.nan], AugmentationConfig(), 1, ratings)
    batch = collate([dataset[SampleRef(k, 0, k)] for k in (2, 0)])
    np.testing.assert_array_equal(batch.labels, [np.nan, 1])
    np.testing.assert_array_equal(batch.ratings, ratings[[2, 0]])
    assert batch.ratings.dtype == torch.float32


@pytest.mark.heavy
def test_worker_processes_give_the_same_batches():
    dataset = NoduleDataset(ToyStore(8), [k % 2 for k in range(8)], AugmentationConfig(), seed=1)
    sampler = BalancedBatchSampler(range(8), [k % 2 for k in range(8)], batch_size=2, samples=6, seed=1)
    here, there = (list(make_loader(dataset, sampler, workers=workers, pin_memory=False)) for workers in (0, 2))
    for own, other in zip(here, there, strict=True):
        torch.testing.assert_close(other, own, rtol=0, atol=0)
