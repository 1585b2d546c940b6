"""Validation: what a network gives for samples as inference sees them."""

from collections.abc import Iterable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from sklearn.metrics import roc_auc_score
from torch import nn

from nodulemc.training.dataset import Batch

_SMALLEST = 1e-6  # voxels: a mask without voxels in which none are found has Dice 1


@torch.no_grad()
def validate(network: nn.Module, batches: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
    """Metrics of a network in eval mode over all processes' batches; see ``validation_metrics``."""
    rows = []
    for raw in batches:
        batch = raw.to(accelerator.device)
        images, masks = batch.resample()
        with accelerator.autocast():
            logits, mask_logits = network(images)
        found = (mask_logits > 0).float()
        overlap, size = (found * masks).sum((1, 2, 3)), (found + masks).sum((1, 2, 3))
        dice = (2 * overlap + _SMALLEST) / (size + _SMALLEST)
        rows += torch.stack([logits.float(), batch.labels, dice], dim=1).tolist()
    logits, labels, dice = np.array(gather_object(rows)).T
    return validation_metrics(logits, labels, dice)


def validation_metrics(logits: np.ndarray, labels: np.ndarray, dice: np.ndarray) -> dict[str, float]:
    """What one validation says.

    Args:
        logits: malignancy logits (N,).
        labels: 0 or 1 (N,).
        dice: each nodule's Dice of the mask at probability one half (N,).

    Returns:
        ``validation_auc`` (NaN with one class only), ``validation_cross_entropy`` (nats per nodule) and
        ``validation_dice`` (the nodules' mean); NaN logits give a NaN AUC and cross-entropy.
    """
    defined = len(np.unique(labels)) == 2 and bool(np.isfinite(logits).all())
    with np.errstate(invalid="ignore"):
        cross_entropy = np.mean(np.logaddexp(0, logits) - labels * logits)
    return {
        "validation_auc": float(roc_auc_score(labels, logits)) if defined else float("nan"),
        "validation_cross_entropy": float(cross_entropy),
        "validation_dice": float(np.mean(dice)),
    }
