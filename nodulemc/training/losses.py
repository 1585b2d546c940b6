"""The multi-task loss: binary cross-entropy on malignancy plus weighted Dice on the segmentation, and attributes.

Source: slides "Nodule Classification using a Multi-Task Training"; the Dice form is that of MClab's public code.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_SMOOTHING = 1.0


class Losses(NamedTuple):
    """The parts of the loss and their weighted sum, each a scalar."""

    total: Tensor
    classification: Tensor
    segmentation: Tensor


def multitask_loss(
    logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    segmentation_weight: float,
    global_sum: Callable[[Tensor], Tensor] = lambda own: own,
    *,
    dice: str = "batch",
    undecided: bool = False,
) -> Losses:
    """Cross-entropy + ``segmentation_weight`` × Dice loss.

    Args:
        logits: malignancy logits (N,).
        mask_logits: (N, 64, 64, 64).
        labels: 0…1, float (N,).
        masks: 0 or 1, float (N, 64, 64, 64).
        segmentation_weight: λ.
        global_sum: sums over all processes, see ``dice_loss``.
        dice: one of ``DICE_LOSSES``.
        undecided: whether labels may be NaN: such samples have no cross-entropy. The same for all processes.
    """
    if undecided:
        classification = known_cross_entropy(logits, labels, global_sum)
    else:
        classification = F.binary_cross_entropy_with_logits(logits.float(), labels)
    segmentation = DICE_LOSSES[dice](mask_logits, masks, global_sum)
    return Losses(classification + segmentation_weight * segmentation, classification, segmentation)


def known_cross_entropy(
    logits: Tensor, targets: Tensor, global_sum: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Mean cross-entropy, nats, over those targets of the whole batch that are not NaN; 0 where none is known.

    Of a target between 0 and 1 it is least where the logit's sigmoid is the target, so that readers' mean ratings are
    learned as means.

    Args:
        logits: any shape.
        targets: the same shape, 0…1 or NaN.
        global_sum: see ``dice_loss``.
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    # A sum of products: an infinite logit must spoil the loss, not vanish from it.
    total, count = global_sum(torch.stack([(losses * known).sum(), known.sum()])).unbind()
    return total / count.clamp_min(1)


def dice_loss(mask_logits: Tensor, masks: Tensor, global_sum: Callable[[Tensor], Tensor] = lambda own: own) -> Tensor:
    """1 − soft Dice over the whole batch, smoothing 1: 1 − (2 Σpt + 1) / (Σp + Σt + 1).

    One Dice for all voxels of the batch lets large nodules count for more than small ones, and is what was
    published. The sums are in fp32: millions of voxels overflow fp16.

    Args:
        mask_logits: any shape.
        masks: the same shape, 0 or 1.
        global_sum: turns this process's sums (a vector) into those over all processes, so that the batch is the
            whole one when several processes share it (see ``differentiable_global_sum``).
    """
    probabilities = torch.sigmoid(mask_logits.float())
    masks = masks.float()
    sums = torch.stack([(probabilities * masks).sum(), probabilities.sum() + masks.sum()])
    overlap, size = global_sum(sums).unbind()
    return _one_minus_dice(overlap, size)


def nodule_dice_loss(
    mask_logits: Tensor, masks: Tensor, global_sum: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Mean over the whole batch of what ``dice_loss`` is of each nodule alone: small nodules count as large ones.

    Args:
        mask_logits: (N, …).
        masks: the same shape, 0 or 1.
        global_sum: see ``dice_loss``.
    """
    probabilities = torch.sigmoid(mask_logits.float()).flatten(1)
    masks = masks.float().flatten(1)
    overlap, size = (probabilities * masks).sum(dim=1), probabilities.sum(dim=1) + masks.sum(dim=1)
    losses = _one_minus_dice(overlap, size)
    total, count = global_sum(torch.stack([losses.sum(), losses.new_tensor(len(losses))])).unbind()
    return total / count


def _one_minus_dice(overlap: Tensor, size: Tensor) -> Tensor:
    return 1 - (2 * overlap + _SMOOTHING) / (size + _SMOOTHING)


DICE_LOSSES = {"batch": dice_loss, "nodule": nodule_dice_loss}


def differentiable_global_sum(reduce_sum: Callable[[Tensor], Tensor], processes: int) -> Callable[[Tensor], Tensor]:
    """Sum over all processes whose gradient is right under data-parallel training.

    Data-parallel training averages the processes' gradients. A loss of global sums needs their total instead,
    hence the factor ``processes`` on this process's share of the gradient; the value is the plain sum.

    Args:
        reduce_sum: all-reduce of a detached tensor.
        processes: how many processes there are.
    """

    def global_sum(own: Tensor) -> Tensor:
        return reduce_sum(own.detach().clone()) + processes * (own - own.detach())

    return global_sum
