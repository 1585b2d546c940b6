"""The multi-task loss: cross-entropy on malignancy, weighted Dice on the segmentation, and the attributes' loss.

Source: slides "Nodule Classification using a Multi-Task Training". The form of Dice is that of MClab's public code.
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
    """Return cross-entropy + ``segmentation_weight`` × Dice loss.

    Args:
        logits: The malignancy logits (N,).
        mask_logits: (N, 64, 64, 64).
        labels: 0…1, float (N,).
        masks: 0 or 1, float (N, 64, 64, 64).
        segmentation_weight: The weight λ.
        global_sum: Sums over all processes, see ``dice_loss``.
        dice: One of ``DICE_LOSSES``.
        undecided: Whether labels may be NaN. Such samples have no cross-entropy. It must be the same for all processes.
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
    """Return the mean cross-entropy, in nats, over the whole batch's targets that are not NaN; 0 if none is known.

    For a target between 0 and 1, the cross-entropy is least if the logit's sigmoid equals the target. So the network
    learns the readers' mean ratings as means.

    Args:
        logits: Any shape.
        targets: The same shape, 0…1 or NaN.
        global_sum: See ``dice_loss``.
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    # A sum of products, because an infinite logit must spoil the loss, not vanish from it.
    total, count = global_sum(torch.stack([(losses * known).sum(), known.sum()])).unbind()
    return total / count.clamp_min(1)


def dice_loss(mask_logits: Tensor, masks: Tensor, global_sum: Callable[[Tensor], Tensor] = lambda own: own) -> Tensor:
    """Return 1 − soft Dice over the whole batch, smoothing 1: 1 − (2 Σpt + 1) / (Σp + Σt + 1).

    One Dice for all voxels of the batch was published. It lets large nodules count for more than small ones. The sums
    are in fp32, because millions of voxels overflow fp16.

    Args:
        mask_logits: Any shape.
        masks: The same shape, 0 or 1.
        global_sum: Turns this process's sums (a vector) into those over all processes. So the batch is the whole one if
            several processes share it (see ``differentiable_global_sum``).
    """
    probabilities = torch.sigmoid(mask_logits.float())
    masks = masks.float()
    sums = torch.stack([(probabilities * masks).sum(), probabilities.sum() + masks.sum()])
    overlap, size = global_sum(sums).unbind()
    return _one_minus_dice(overlap, size)


def nodule_dice_loss(
    mask_logits: Tensor, masks: Tensor, global_sum: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Return the mean of each nodule's ``dice_loss`` over the whole batch. Small nodules count as much as large ones.

    Args:
        mask_logits: (N, …).
        masks: The same shape, 0 or 1.
        global_sum: See ``dice_loss``.
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
    """Return a sum over all processes whose gradient is right in data-parallel training.

    Data-parallel training averages the processes' gradients. A loss of global sums needs their total instead. Hence
    this process's share of the gradient has the factor ``processes``; the value is the plain sum.

    Args:
        reduce_sum: An all-reduce of a detached tensor.
        processes: The number of processes.
    """

    def global_sum(own: Tensor) -> Tensor:
        return reduce_sum(own.detach().clone()) + processes * (own - own.detach())

    return global_sum
