"""Steps of training against the definitions, written out in double precision."""

from copy import deepcopy

import pytest
import torch
from training.toys import RatedToy

from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from nodulemc.training.devices import create_accelerator
from nodulemc.training.step import TrainingStep

PENALTY, BETAS = 0.02, (0.8, 0.95)
SEGMENTATION, ATTRIBUTES = 0.7, 0.3
RATES = (3e-3, 1e-3)
IMAGES = torch.rand(4, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
MASKS = (IMAGES[:, 0] > 0.7).float()
LABELS = torch.tensor([0.0, 1.0, 0.25, torch.nan])
RATINGS = torch.tensor([[0.5], [torch.nan], [1.0], [0.0]])


def cross_entropy(logits, targets):
    known = ~targets.isnan()
    p, t = torch.sigmoid(logits[known]), targets[known].double()
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def losses_of(network):
    logits, mask_logits, attribute_logits = network(IMAGES.double())
    p = torch.sigmoid(mask_logits)
    parts = (
        cross_entropy(logits, LABELS),
        1 - (2 * (p * MASKS).sum() + 1) / (p.sum() + MASKS.sum() + 1),
        cross_entropy(attribute_logits, RATINGS),
    )
    return parts[0] + SEGMENTATION * parts[1] + ATTRIBUTES * parts[2], *parts


@pytest.mark.heavy
def test_two_steps_are_those_of_adam_on_the_weighted_losses_and_the_average_follows():
    torch.manual_seed(2)
    network = PatchNetwork(RatedToy())
    plain = deepcopy(network).double().train()
    average = [p.detach().clone() for p in plain.parameters()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in average]
    config = TrainingConfig(
        model=ModelConfig(kinetics=None),
        optimizer=OptimizerConfig(learning_rate=1.0, weight_decay=PENALTY, betas=BETAS),
        run=RunConfig(segmentation_weight=SEGMENTATION, attribute_weight=ATTRIBUTES, ema_decay=0.2),
    )
    step = TrainingStep(network, config, create_accelerator("fp32"), undecided=True)
    step.prepare_to_train()
    for number, rate in enumerate(RATES, start=1):
        found = step(IMAGES, MASKS, LABELS, rate, RATINGS)
        expected = losses_of(plain)
        torch.testing.assert_close(found.double(), torch.stack(expected).detach(), rtol=1e-5, atol=1e-6)
        gradients = torch.autograd.grad(expected[0], [*plain.parameters()])
        # Kingma & Ba, ICLR 2015, algorithm 1, with the L2 penalty in the gradient.
        with torch.no_grad():
            for p, gradient, (first, second) in zip(plain.parameters(), gradients, moments, strict=True):
                g = gradient + PENALTY * p
                first.mul_(BETAS[0]).add_((1 - BETAS[0]) * g)
                second.mul_(BETAS[1]).add_((1 - BETAS[1]) * g**2)
                unbiased = first / (1 - BETAS[0] ** number), second / (1 - BETAS[1] ** number)
                p -= rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        # The first decay is that of the average's start, (1 + 1) / (10 + 1), the second the recipe's.
        decay = (2 / 11, 0.2)[number - 1]
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, plain.parameters(), strict=True)]
        for mine, its in zip(step.network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.double(), its, rtol=0, atol=rate * 1e-2)
        for mine, its in zip(step.ema.network.parameters(), average, strict=True):
            torch.testing.assert_close(mine.double(), its, rtol=0, atol=rate * 1e-2)
    assert not torch.equal(torch.cat([p.ravel() for p in average]), torch.cat([p.ravel() for p in plain.parameters()]))


def test_an_attribute_head_without_ratings_is_refused():
    step = TrainingStep(
        PatchNetwork(RatedToy()), TrainingConfig(model=ModelConfig(kinetics=None)), create_accelerator("fp32")
    )
    with pytest.raises(ValueError, match="learns from ratings"):
        step(IMAGES, MASKS, LABELS.nan_to_num(), 1e-3)
