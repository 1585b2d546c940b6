"""Validation: a network's results for samples as inference sees them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn

from nodulemc.arrays import Array
from nodulemc.ratings import HIGHEST, LOWEST
from nodulemc.training.dataset import Batch

_SMALLEST = 1e-6  # voxels; so an empty mask in which no voxel is found has Dice 1


@torch.no_grad()
def validate(
    network: nn.Module, batches: Iterable[Batch], accelerator: Accelerator, attributes: Sequence[str] = ()
) -> dict[str, float]:
    """Return the metrics of a network in eval mode over all processes' batches.

    See ``validation_metrics`` and, for a network with an attribute head, ``attribute_metrics``.
    """
    rows = []
    for raw in batches:
        batch = raw.to(accelerator.device)
        images, masks = batch.resample()
        with accelerator.autocast():
            logits, mask_logits, *described = network(images)
        found = (mask_logits > 0).float()
        overlap, size = (found * masks).sum((1, 2, 3)), (found + masks).sum((1, 2, 3))
        dice = (2 * overlap + _SMALLEST) / (size + _SMALLEST)
        columns = [torch.stack([logits.float(), batch.labels, dice], dim=1)]
        columns += [torch.cat([logits.float().sigmoid(), batch.ratings], dim=1) for logits in described]
        rows += torch.cat(columns, dim=1).tolist()
    logits, labels, dice, *rest = np.array(gather_object(rows)).T
    found, ratings = rest[: len(attributes)], rest[len(attributes) :]
    return validation_metrics(logits, labels, dice) | attribute_metrics(attributes, found, ratings)


def validation_metrics(logits: Array, labels: Array, dice: Array) -> dict[str, float]:
    """Return the metrics of one validation.

    Args:
        logits: The malignancy logits (N,).
        labels: 0 or 1, NaN if undecided (N,).
        dice: The Dice of each nodule's mask at probability one half (N,).

    Returns:
        ``validation_auc`` (NaN with one class only) and ``validation_cross_entropy`` (nats per nodule), both over the
            nodules that have a label, and ``validation_dice`` (the mean of all nodules). NaN logits give a NaN AUC and
            cross-entropy.
    """
    labelled = ~np.isnan(labels)
    logits, labels = logits[labelled], labels[labelled]
    defined = len(np.unique(labels)) == 2 and bool(np.isfinite(logits).all())
    with np.errstate(invalid="ignore"):
        cross_entropy = np.mean(np.logaddexp(0, logits) - labels * logits)
    return {
        "validation_auc": float(roc_auc_score(labels, logits)) if defined else float("nan"),
        "validation_cross_entropy": float(cross_entropy),
        "validation_dice": float(np.mean(dice)),
    }


def attribute_metrics(names: Sequence[str], found: Sequence[Array], ratings: Sequence[Array]) -> dict[str, float]:
    """Return the metrics of one validation for each attribute, over the nodules with a known rating.

    Args:
        names: The names of the attributes.
        found: The network's rating of each attribute, 0…1 (N,).
        ratings: The readers' mean ratings on the same scale, NaN if unknown (N,).

    Returns:
        ``validation_NAME_mae``, the mean absolute error on the readers' scale, and ``validation_NAME_spearman``, the
            rank correlation, NaN if either side is constant.
    """
    metrics = {}
    for name, mine, theirs in zip(names, found, ratings, strict=True):
        known = ~np.isnan(theirs)
        pair = mine[known], theirs[known]
        error = np.abs(pair[0] - pair[1]).mean() * (HIGHEST[name] - LOWEST) if known.any() else np.nan
        varied = all(len(np.unique(side)) > 1 for side in pair)
        metrics[f"validation_{name}_mae"] = float(error)
        metrics[f"validation_{name}_spearman"] = float(spearmanr(*pair).statistic) if varied else float("nan")
    return metrics
