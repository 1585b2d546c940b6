import pytest
import torch
from torch import nn

from nodulemc.training.ema import ExponentialMovingAverage


def test_the_average_in_closed_form_with_growing_decay():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = ExponentialMovingAverage(network, decay=0.2)
    expected = 0.0
    for step, value in enumerate([1.0, 5.0, -2.0, 4.0], start=1):
        nn.init.constant_(network.weight, value)
        ema.update(network)
        decay = min(0.2, (1 + step) / (10 + step))  # 2/11 in the first step, 0.2 from the third on
        expected = decay * expected + (1 - decay) * value
        assert ema.network.weight.item() == pytest.approx(expected, abs=1e-6)
    assert ema.updates == 4


def test_buffers_follow_and_counters_are_copied():
    network = nn.BatchNorm1d(2)
    ema = ExponentialMovingAverage(network, decay=0.5)
    for _ in range(3):
        network(torch.randn(8, 2) + 10)
    before = network.running_mean.clone()
    ema.update(network)
    torch.testing.assert_close(ema.network.running_mean, before * (1 - 2 / 11))
    assert ema.network.num_batches_tracked.item() == 3


def test_the_average_is_apart_from_the_network_and_only_predicts():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = ExponentialMovingAverage(network, decay=0.9)
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    with torch.no_grad():
        network[0].weight.add_(1)
    assert not torch.equal(ema.network[0].weight, network[0].weight)
