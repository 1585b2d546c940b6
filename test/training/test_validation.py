import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from training.toy_store import ToyStore

from nodulemc.training.dataset import NoduleDataset, SampleRef, SequentialBatchSampler, make_loader
from nodulemc.training.devices import create_accelerator
from nodulemc.training.validation import attribute_metrics, validate, validation_metrics


def test_validation_metrics_by_hand():
    logits = np.array([2.0, -1.0, 0.5, 0.0])
    labels = np.array([1, 0, 0, 1])
    found = validation_metrics(logits, labels, np.array([0.5, 0.7, 0.9, 0.1]))
    # Pairs of a malignant and a benign one: 2 > -1, 2 > 0.5, 0 > -1, but 0 < 0.5.
    assert found["validation_auc"] == pytest.approx(3 / 4)
    probabilities = 1 / (1 + np.exp(-logits))
    cross_entropy = -np.mean(np.log(np.where(labels, probabilities, 1 - probabilities)))
    assert found["validation_cross_entropy"] == pytest.approx(cross_entropy)
    assert found["validation_dice"] == pytest.approx(0.55)
    assert math.isnan(validation_metrics(logits, np.ones(4), np.ones(4))["validation_auc"])
    spoilt = validation_metrics(np.array([1.0, np.nan, 0, 0]), labels, np.ones(4))
    assert math.isnan(spoilt["validation_auc"])
    assert math.isnan(spoilt["validation_cross_entropy"])


def test_undecided_nodules_count_for_masks_alone():
    logits, dice = np.array([2.0, -1.0, 0.5, 0.0, 9.0]), np.array([0.5, 0.7, 0.9, 0.1, 0.3])
    labels = np.array([1, 0, 0, 1, np.nan])
    found, without = validation_metrics(logits, labels, dice), validation_metrics(logits[:4], labels[:4], dice[:4])
    assert found == without | {"validation_dice": pytest.approx(0.5)}


def test_attribute_metrics_by_hand_and_by_scipy():
    random = np.random.default_rng(2)
    found = random.random((2, 30))
    ratings = (found + random.normal(0, 0.2, (2, 30))).clip(0, 1).round(1)
    ratings[1, ::3] = np.nan
    metrics = attribute_metrics(("texture", "calcification"), found, ratings)
    known = ~np.isnan(ratings[1])
    assert metrics["validation_texture_mae"] == pytest.approx(4 * np.abs(found[0] - ratings[0]).mean())
    assert metrics["validation_calcification_mae"] == pytest.approx(5 * np.abs(found[1] - ratings[1])[known].mean())
    assert metrics["validation_texture_spearman"] == pytest.approx(spearmanr(found[0], ratings[0])[0])
    assert metrics["validation_calcification_spearman"] == pytest.approx(
        spearmanr(found[1][known], ratings[1][known])[0]
    )
    constant = attribute_metrics(("texture", "margin"), [found[0], found[1]], [np.full(30, 0.5), np.full(30, np.nan)])
    assert constant["validation_texture_mae"] > 0
    assert all(
        math.isnan(constant[f"validation_{name}"]) for name in ("texture_spearman", "margin_spearman", "margin_mae")
    )


class Thresholds(nn.Module):
    """Says malignant where the patch's centre is bright, and takes bright voxels for the nodule."""

    def forward(self, patches):
        bright = patches[:, 0] - 0.25
        return bright[:, 30:34, 30:34, 30:34].mean((1, 2, 3)) - 0.2, bright


def test_a_network_is_judged_on_samples_without_augmentation():
    labels = [k % 2 for k in range(5)]
    dataset = NoduleDataset(ToyStore(5), labels, None, seed=1)
    loader = make_loader(dataset, SequentialBatchSampler(range(5), batch_size=2), workers=0, pin_memory=False)
    found = validate(Thresholds(), loader, create_accelerator("fp32"))
    assert found["validation_auc"] == 1
    assert found["validation_dice"] > 0.9
    logits, dice = [], []
    for k in range(5):
        images, masks = dataset[SampleRef(k, 0, 0)].resample()
        logit, mask = Thresholds()(images)
        logits.append(logit.item())
        dice.append((2 * ((mask > 0) & (masks > 0)).sum() / ((mask > 0).sum() + (masks > 0).sum())).item())
    assert found["validation_dice"] == pytest.approx(np.mean(dice), abs=1e-5)
    expected = nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(labels).float())
    assert found["validation_cross_entropy"] == pytest.approx(expected.item(), abs=1e-5)
