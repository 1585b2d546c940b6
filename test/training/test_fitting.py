import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from training.toys import rated_data

from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training import trainer
from nodulemc.training.config import parse_config
from nodulemc.training.dataset import BalancedBatchSampler, NoduleDataset, SampleRef, collate
from nodulemc.training.devices import create_accelerator
from nodulemc.training.fitting import fit_heads, measure_batch_norm, penalised_logistic
from nodulemc.training.step import freeze_parts
from nodulemc.training.trainer import train_seed

RANDOM = np.random.default_rng(7)
FEATURES = (RANDOM.normal(size=(300, 6)) * (1, 10, 0.1, 3, 1, 1) + (0, 5, -2, 0, 1, 0)).astype(np.float32)
LABELS = (FEATURES @ (1, 0.1, 5, 0.3, 0, 0) + RANDOM.normal(size=300) > -8).astype(float)


def scikit_learns(features, targets, penalty, *, balanced=False):
    """The same regression by scikit-learn; a soft target is a sample of each class, weighted by it."""
    scaler = StandardScaler().fit(features)
    known = ~np.isnan(targets)
    x, y = scaler.transform(features[known]), targets[known]
    shares = np.array([1.0, 1.0])
    if balanced:
        shares = 0.5 / np.array([(1 - y).mean(), y.mean()])
    model = LogisticRegression(C=1 / (penalty * len(y)), tol=1e-8, max_iter=10_000)
    classes, weights = np.repeat((1, 0), len(y)), np.concatenate([y * shares[1], (1 - y) * shares[0]])
    model.fit(np.concatenate([x, x])[weights > 0], classes[weights > 0], weights[weights > 0])
    weight = model.coef_[0] / scaler.scale_
    return weight, model.intercept_[0] - weight @ scaler.mean_


@pytest.mark.parametrize("penalty", [0.01, 0.3])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("kind", ["labels", "undecided", "soft"])
def test_the_regression_is_scikit_learns(kind, balanced, penalty):
    targets = LABELS.copy()
    if kind == "undecided":
        targets[::5] = np.nan
    elif kind == "soft":
        targets = np.clip(0.2 + 0.6 * targets + 0.1 * FEATURES[:, 0], 0, 1)
    weight, bias = penalised_logistic(FEATURES, targets, penalty, balanced=balanced)
    expected, offset = scikit_learns(FEATURES, targets, penalty, balanced=balanced)
    np.testing.assert_allclose(FEATURES @ weight + bias, FEATURES @ expected + offset, atol=5e-3)


def small_network(name: str, *, attributes=("texture",)) -> PatchNetwork:
    torch.manual_seed(3)
    architecture = Architecture(name, decoder_widths=(8,) * 5, pooling="centre", attributes=attributes)
    return PatchNetwork(create_model(architecture, with_decoder=True))


def test_heads_are_fitted_the_malignancy_head_with_equal_classes(small_backbone):
    network = small_network(small_backbone, attributes=("texture", "margin"))
    width = network.network.attribute_head.in_features
    features = RANDOM.normal(size=(200, width)).astype(np.float32)
    labels = (features[:, 0] > 1).astype(float)
    ratings = np.clip(0.5 + 0.2 * features[:, 1:3], 0, 1)
    ratings[::7, 0] = np.nan
    fit_heads(network, features, labels, ratings, 0.1)
    heads = network.network.classifier_head[-1], network.network.attribute_head
    found = [head(torch.from_numpy(features)).detach().numpy() for head in heads]
    expected = [scikit_learns(features, labels, 0.1, balanced=True)]
    expected += [scikit_learns(features, column, 0.1) for column in ratings.T]
    for logits, (weight, bias) in zip(np.concatenate(found, axis=1).T, expected, strict=True):
        np.testing.assert_allclose(logits, features @ weight + bias, atol=5e-3)


def test_batch_norm_gets_the_means_of_the_batches_statistics(small_backbone):
    network = small_network(small_backbone)
    backbone = network.network.backbone
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    first = []
    for x in batches:
        upscaled = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4).expand(-1, 3, -1, -1, -1)
        first.append(nn.functional.conv3d(upscaled, backbone.conv1.weight, padding=(1, 2, 2)))
    expected = torch.stack([x.mean((0, 2, 3, 4)) for x in first]).mean(0)
    variance = torch.stack([x.var((0, 2, 3, 4)) for x in first]).mean(0)
    network.eval()
    measure_batch_norm(network, batches)
    torch.testing.assert_close(backbone.bn1.running_mean, expected.detach())
    torch.testing.assert_close(backbone.bn1.running_var, variance.detach())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {n for n in before if n.startswith("network.backbone.") and n.endswith(statistics)}
    assert (backbone.bn1.momentum, backbone.bn1.training) == (0.1, False)


RECIPE = {
    "model": {"kinetics": "k", "kinetics_batch_norm": "measured", "frozen": ["backbone"], "pooling": "centre",
              "attributes": ["texture"]},
    "run": {"epochs": 2, "central_epochs": 2, "batch_size": 4, "samples_per_epoch": 8, "workers": 0,
            "precision": "fp32", "head_copies": 2, "head_penalty": 0.2},
}  # fmt: skip


def train(folder, network, *, frozen="backbone", resume=False):
    def create(config, seed):
        freeze_parts(network.network, config.frozen)
        return network

    accelerator = create_accelerator("fp32")
    recipe = parse_config(RECIPE | {"model": RECIPE["model"] | {"frozen": [frozen]}}, "test")
    return train_seed(recipe, rated_data(), folder, 5, accelerator, resume=resume, create=create)


@pytest.mark.parametrize("frozen", ["backbone", "fine_stages"])
def test_training_fits_the_heads_to_frozen_features_and_learns_the_masks(tmp_path, small_backbone, frozen):
    network, data = small_network(small_backbone), rated_data()
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    trained = train(tmp_path, network, frozen=frozen)
    changed = {name for name, value in before.items() if not torch.equal(trained.state_dict[name], value)}
    assert {"classifier_head.2.weight", "attribute_head.weight", "aux_model.last_layer.weight"} < changed
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    of_backbone = {name for name in changed if name.startswith("backbone.") and not name.endswith(statistics)}
    later = {n for n in before if n.startswith(("backbone.layer3", "backbone.layer4")) and not n.endswith(statistics)}
    assert of_backbone == (later if frozen == "fine_stages" else set())

    network.network.load_state_dict(trained.state_dict)
    network.eval()
    config = parse_config(RECIPE, "test")
    ratings = data.ratings(("texture",))
    samples = NoduleDataset(data.store, data.targets(soft=False), config.augmentation, 5, ratings)
    batch = collate([samples[SampleRef(k, 2 + c, place)] for c in range(2) for place, k in enumerate(data.train)])
    features = network.features(batch.resample(32)[0]).detach().numpy()
    heads = network.network.classifier_head, network.network.attribute_head
    targets = (batch.labels.numpy(), True), (batch.ratings[:, 0].numpy(), False)
    for head, (target, balanced) in zip(heads, targets, strict=True):
        weight, bias = scikit_learns(features, target.astype(float), 0.2, balanced=balanced)
        found = head(torch.from_numpy(features)).detach().numpy()[:, 0]
        np.testing.assert_allclose(found, features @ weight + bias, atol=2e-2)


def test_the_statistics_are_those_of_balanced_draws_that_no_step_sees(tmp_path, small_backbone, monkeypatch):
    monkeypatch.setattr(trainer, "_MEASURED_SAMPLES", 8)
    network, data = small_network(small_backbone), rated_data()
    found = train(tmp_path, network).state_dict["backbone.bn1.running_mean"]
    config, fresh = parse_config(RECIPE, "test"), small_network(small_backbone)
    draws = BalancedBatchSampler(data.train, [data.labels[k] for k in data.train], batch_size=4, samples=8, seed=5)
    draws.epoch = 2
    samples = NoduleDataset(data.store, data.targets(soft=False), config.augmentation, 5)
    measure_batch_norm(fresh, [collate([samples[ref] for ref in refs]).resample(32)[0] for refs in draws])
    torch.testing.assert_close(found, fresh.network.backbone.bn1.running_mean)


def test_a_resumed_run_keeps_its_fitted_heads(tmp_path, small_backbone, monkeypatch):
    whole = train(tmp_path / "whole", small_network(small_backbone))
    save = trainer.save_checkpoint

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(trainer, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", small_network(small_backbone))
    monkeypatch.setattr(trainer, "fit_heads", None)
    resumed = train(tmp_path / "parts", small_network(small_backbone), resume=True)
    assert all(torch.equal(resumed.state_dict[name], value) for name, value in whole.state_dict.items())
