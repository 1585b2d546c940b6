from dataclasses import replace

import numpy as np
import pytest
from evaluation.samples import make_predictions
from sklearn.metrics import roc_auc_score

from nodulemc.errors import TableError
from nodulemc.evaluation.compare import compare


@pytest.fixture
def sample():
    return make_predictions(seeds=1, ties=False)


def with_noise(sample, amount):
    noise = np.random.default_rng(5).normal(0, amount, len(sample))
    return replace(sample, probabilities=np.clip(sample.probabilities + noise, 0, 1))


@pytest.mark.heavy
def test_interval_is_that_of_copied_rows(sample):
    other = with_noise(sample, 0.3)
    found = compare(sample, other, 1000)
    random = np.random.default_rng(7)
    members = [np.flatnonzero(sample.patients == p) for p in range(sample.patients.max() + 1)]
    drawn = []
    for _ in range(500):
        index = np.concatenate([members[p] for p in random.integers(len(members), size=len(members))])
        both = [roc_auc_score(s.labels[index], s.probabilities[index]) for s in (sample, other)]
        drawn.append(both[0] - both[1])
    assert found.bootstrap_ci95 == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.5 * np.std(drawn))
    assert found.difference == pytest.approx(found.auc[0] - found.auc[1], abs=1e-12)
    assert found.difference > 0
    assert found.bootstrap_p == pytest.approx(2 / 1001)
    assert found.delong_p < 0.001


def test_small_difference_is_not_significant(sample):
    found = compare(sample, with_noise(sample, 0.01), 500)
    assert found.bootstrap_p > 0.05
    assert found.delong_p > 0.05
    assert found.bootstrap_ci95[0] < 0 < found.bootstrap_ci95[1]


def test_predictions_against_themselves(sample):
    found = compare(sample, sample, 100)
    assert (found.difference, found.delong_p, found.bootstrap_p) == (0, 1, 1)
    assert found.bootstrap_ci95 == [0, 0]


def test_order_of_nodules_does_not_matter(sample):
    other = with_noise(sample, 0.1)
    shuffled = other.take(np.random.default_rng(0).permutation(len(other)))
    assert compare(sample, shuffled, 50) == compare(sample, other, 50)


def test_other_nodules_are_refused(sample):
    part = sample.take(np.arange(2, len(sample)))
    with pytest.raises(TableError, match=f"2 nodules of samples not there: {sample.ids[0]}, {sample.ids[1]}"):
        compare(sample, part, 10)
    with pytest.raises(TableError, match="2 nodules of samples not there"):
        compare(part, sample, 10)


def test_other_labels_are_refused(sample):
    labels = sample.labels.copy()
    labels[3] = 1 - labels[3]
    with pytest.raises(TableError, match=f"labels of 1 nodule are not those of samples: {sample.ids[3]}"):
        compare(sample, replace(sample, labels=labels), 10)
