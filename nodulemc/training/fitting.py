"""What a frozen backbone gets before the first step: BatchNorm's statistics of CT, and heads fitted to its features.

A fit has one optimum, so it needs no learning rate, and its penalty keeps the heads from learning 1,000 nodules by
heart. Source of linear classifiers on frozen features: Alain & Bengio 2016, arXiv:1610.01644.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nodulemc.arrays import Array
from nodulemc.models.upscaled_stem import PatchNetwork

_MAX_ITERATIONS = 300
_SMALLEST_DEVIATION = 1e-6


def measure_batch_norm(network: PatchNetwork, patches: Iterable[Tensor]) -> None:
    """Replace the statistics of the backbone's BatchNorm by the means of those of some batches.

    Args:
        network: A network of the full package.
        patches: Batches (N, 1, S, S, S), values 0…1.
    """
    norms = [m for m in network.network.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad(), _averaging(norms):
        for batch in patches:
            network.feature_maps(batch)


@contextmanager
def _averaging(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    yield
    for norm, momentum, training in before:
        norm.momentum = momentum
        norm.train(training)


def fit_heads(network: PatchNetwork, features: Array, labels: Array, ratings: Array, penalty: float) -> None:
    """Fit a network's heads to features of training samples, in place.

    Malignant and benign samples have the same weight in total, as where batches are drawn.

    Args:
        network: A network whose malignancy head is one linear layer.
        features: float32 (N, F), from ``PatchNetwork.features``.
        labels: (N,), 0…1, NaN if undecided.
        ratings: (N, A), 0…1, NaN if unknown.
        penalty: See ``penalised_logistic``.
    """
    multitask = network.network
    head = cast("nn.Linear", multitask.classifier_head[-1])
    _fill(head, [penalised_logistic(features[:, : head.in_features], labels, penalty, balanced=True)])
    if multitask.attributes:
        _fill(multitask.attribute_head, [penalised_logistic(features, column, penalty) for column in ratings.T])


def penalised_logistic(
    features: Array, targets: Array, penalty: float, *, balanced: bool = False
) -> tuple[Array, float]:
    """Return weights (F,) and bias of a logistic regression on standardised features.

    It minimises the mean cross-entropy plus ``penalty`` / 2 times the squared length of the weights of the standardised
    features. The returned ones are those of the features as they are.

    Args:
        features: float32 (N, F).
        targets: (N,), 0…1, NaN if unknown. Such samples do not count.
        penalty: The penalty's weight.
        balanced: Whether targets of 0 and 1 have the same weight in total.
    """
    known = ~np.isnan(targets)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + _SMALLEST_DEVIATION
    x = torch.from_numpy((features[known] - mean) / deviation)
    y = torch.from_numpy(targets[known].astype(np.float32))
    share = y.mean() if balanced else torch.tensor(0.5)
    of_ones, of_zeros = 0.5 / share, 0.5 / (1 - share)
    parameters = torch.zeros(x.shape[1] + 1, requires_grad=True)
    solver = torch.optim.LBFGS([parameters], max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = x @ parameters[:-1] + parameters[-1]
        entropy = of_zeros * F.binary_cross_entropy_with_logits(logits, y, pos_weight=of_ones / of_zeros)
        value = entropy + penalty / 2 * parameters[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    found = parameters.detach().numpy().astype(np.float64)
    weight = found[:-1] / deviation
    return weight, float(found[-1] - weight @ mean)


def _fill(head: nn.Linear, outputs: list[tuple[Array, float]]) -> None:
    weight, bias = (torch.from_numpy(np.array(part)) for part in zip(*outputs, strict=True))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
