import math

import pytest
import torch

from nodulemc.training.config import DICE
from nodulemc.training.losses import (
    DICE_LOSSES,
    dice_loss,
    differentiable_global_sum,
    known_cross_entropy,
    multitask_loss,
    nodule_dice_loss,
)


def test_dice_over_the_whole_batch_in_closed_form():
    # Probabilities 0.5 on 16 voxels of two samples; one is all nodule, the other has none. A Dice per sample,
    # averaged, would be 1 - ((8 + 1) / (4 + 8 + 1) + 1 / (4 + 1)) / 2 = 0.554.
    masks = torch.zeros(2, 8)
    masks[0] = 1
    assert dice_loss(torch.zeros(2, 8), masks).item() == pytest.approx(1 - (2 * 4 + 1) / (8 + 8 + 1), abs=1e-6)


def test_dice_of_each_nodule_in_closed_form():
    # As above; and through the recipe's word for it.
    masks = torch.zeros(2, 8)
    masks[0] = 1
    expected = 1 - ((8 + 1) / (4 + 8 + 1) + 1 / (4 + 1)) / 2
    assert nodule_dice_loss(torch.zeros(2, 8), masks).item() == pytest.approx(expected, abs=1e-6)
    losses = multitask_loss(torch.zeros(2), torch.zeros(2, 8), torch.zeros(2), masks, 0.5, dice="nodule")
    assert losses.segmentation.item() == pytest.approx(expected, abs=1e-6)
    assert tuple(DICE_LOSSES) == DICE


def test_processes_that_share_a_batch_get_the_whole_batchs_mean_dice_of_the_nodules():
    torch.manual_seed(0)
    features, masks = torch.randn(3, 5, 6), (torch.rand(3, 5) < 0.3).float()
    weight = torch.randn(6, requires_grad=True)
    whole = nodule_dice_loss(features @ weight, masks)
    (expected,) = torch.autograd.grad(whole, weight)
    gradients = []
    for part, other in (([0, 1], [2]), ([2], [0, 1])):  # the processes' shares differ
        lost = sum(nodule_dice_loss((features @ weight.detach())[[k]], masks[[k]]) for k in other)
        there = torch.stack([lost, torch.tensor(float(len(other)))])
        global_sum = differentiable_global_sum(lambda own, there=there: own + there, processes=2)
        shared = nodule_dice_loss(features[part] @ weight, masks[part], global_sum)
        assert shared.item() == pytest.approx(whole.item(), abs=1e-6)
        gradients.append(torch.autograd.grad(shared, weight)[0])
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), expected)


def test_dice_of_perfect_and_of_empty_masks():
    masks = torch.zeros(1, 4, 4, 4)
    masks[0, 1:3, 1:3, 1:3] = 1
    assert dice_loss(masks * 200 - 100, masks).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(torch.full_like(masks, -100), torch.zeros_like(masks)).item() == pytest.approx(0, abs=1e-6)


def test_dice_of_half_precision_logits_does_not_overflow():
    masks = torch.ones(2, 64, 64, 64)
    loss = dice_loss(torch.full(masks.shape, 20.0, dtype=torch.float16), masks)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_multitask_loss_in_closed_form():
    logits, labels = torch.tensor([math.log(3), 0.0]), torch.tensor([1.0, 0.0])
    masks = torch.ones(2, 2, 2, 2)
    losses = multitask_loss(logits, torch.zeros(masks.shape), labels, masks, 0.5)
    cross_entropy = (math.log(4 / 3) + math.log(2)) / 2
    dice = 1 - (2 * 8 + 1) / (8 + 16 + 1)
    assert losses.classification.item() == pytest.approx(cross_entropy, abs=1e-6)
    assert losses.segmentation.item() == pytest.approx(dice, abs=1e-6)
    assert losses.total.item() == pytest.approx(cross_entropy + 0.5 * dice, abs=1e-6)


def test_processes_that_share_a_batch_get_the_whole_batchs_loss_and_gradient():
    torch.manual_seed(0)
    features, masks = torch.randn(4, 5, 6), (torch.rand(4, 5) < 0.3).float()
    weight = torch.randn(6, requires_grad=True)
    whole = dice_loss(features @ weight, masks)
    (expected,) = torch.autograd.grad(whole, weight)

    def sums(part: slice) -> torch.Tensor:
        p = torch.sigmoid(features[part] @ weight.detach())
        return torch.stack([(p * masks[part]).sum(), p.sum() + masks[part].sum()])

    parts = [slice(0, 2), slice(2, 4)]
    gradients = []
    for part, other in zip(parts, parts[::-1], strict=True):
        global_sum = differentiable_global_sum(lambda own, other=other: own + sums(other), processes=2)
        shared = dice_loss(features[part] @ weight, masks[part], global_sum)
        assert shared.item() == pytest.approx(whole.item(), abs=1e-6)
        gradients.append(torch.autograd.grad(shared, weight)[0])
    # Data-parallel training averages the processes' gradients.
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), expected)


def test_the_cross_entropy_of_known_targets_in_closed_form():
    logits = torch.tensor([[math.log(3), 5.0], [0.0, -math.log(3)]])
    targets = torch.tensor([[0.25, math.nan], [math.nan, 0.25]])
    # At the target itself it is the target's entropy; here one is there, and the other is at 3/4 instead.
    at, off = 0.25 * math.log(4) + 0.75 * math.log(4 / 3), 0.25 * math.log(4 / 3) + 0.75 * math.log(4)
    assert known_cross_entropy(logits, targets).item() == pytest.approx((at + off) / 2, abs=1e-6)
    assert known_cross_entropy(logits, torch.full((2, 2), math.nan)).item() == 0


def test_undecided_samples_have_no_cross_entropy_and_no_gradient():
    torch.manual_seed(0)
    logits, masks = torch.randn(5, requires_grad=True), torch.ones(5, 2, 2, 2)
    labels = torch.tensor([1.0, math.nan, 0.0, math.nan, 1.0])
    losses = multitask_loss(logits, torch.zeros(masks.shape), labels, masks, 0.5, undecided=True)
    known = [0, 2, 4]
    fewer = multitask_loss(logits[known], torch.zeros(masks.shape), labels[known], masks, 0.5)
    torch.testing.assert_close(losses, fewer)
    (gradient,) = torch.autograd.grad(losses.total, logits)
    (expected,) = torch.autograd.grad(fewer.total, logits)
    torch.testing.assert_close(gradient, expected)
    assert gradient[[1, 3]].tolist() == [0, 0]


def test_processes_with_different_numbers_of_known_targets_get_the_whole_batchs_mean():
    torch.manual_seed(0)
    features, weight = torch.randn(4, 3), torch.randn(3, requires_grad=True)
    targets = torch.tensor([0.2, 0.9, math.nan, 0.4])
    (expected,) = torch.autograd.grad(known_cross_entropy(features @ weight, targets), weight)
    parts = [slice(0, 2), slice(2, 4)]

    def sums(part: slice) -> torch.Tensor:
        count = (~targets[part].isnan()).sum()
        return torch.stack([known_cross_entropy(features[part] @ weight.detach(), targets[part]) * count, count])

    gradients = []
    for part, other in zip(parts, parts[::-1], strict=True):
        global_sum = differentiable_global_sum(lambda own, other=other: own + sums(other), processes=2)
        shared = known_cross_entropy(features[part] @ weight, targets[part], global_sum)
        gradients.append(torch.autograd.grad(shared, weight)[0])
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), expected)
