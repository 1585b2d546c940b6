import math

import pytest
import torch

from nodulemc.training.losses import dice_loss, differentiable_global_sum, multitask_loss


def test_dice_over_the_whole_batch_in_closed_form():
    # Probabilities 0.5 on 16 voxels of two samples; one is all nodule, the other has none. A Dice per sample,
    # averaged, would be 1 - ((8 + 1) / (4 + 8 + 1) + 1 / (4 + 1)) / 2 = 0.554.
    masks = torch.zeros(2, 8)
    masks[0] = 1
    assert dice_loss(torch.zeros(2, 8), masks).item() == pytest.approx(1 - (2 * 4 + 1) / (8 + 8 + 1), abs=1e-6)


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
