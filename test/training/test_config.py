from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nodulemc.errors import ConfigError
from nodulemc.models.architecture import Architecture
from nodulemc.training.config import OptimizerConfig, TrainingConfig, parse_config, read_config

CONFIGS = Path(__file__).parents[2] / "configs"
# Slides "Nodule Classification using a Multi-Task Training" and MClab's experiment_config.py.
PUBLISHED = {
    "model": {
        "backbone": "inception_i3d",
        "head_widths": [],
        "pooling": "global",
        "decoder_widths": [832, 480, 192, 64, 64],
        "kinetics": "download",
        "kinetics_batch_norm": "frozen",
        "start_from": None,
        "start_averaged": False,
        "attributes": [],
        "frozen": [],
    },
    "optimizer": {
        "learning_rate": 1e-4,
        "weight_decay": 5e-4,
        "betas": [0.9, 0.999],
        "warmup_steps": 0,
        "decay": "none",
    },
    "augmentation": {"rotation_degrees": 20.0, "shift_mm": 2.5, "flip_probability": 0.3},
    "run": {
        "epochs": 15,
        "central_epochs": 0,
        "batch_size": 32,
        "samples_per_epoch": None,
        "segmentation_weight": 0.5,
        "dice": "batch",
        "attribute_weight": 0.5,
        "soft_labels": False,
        "head_copies": 0,
        "head_penalty": 0.3,
        "ema_decay": 0.998,
        "precision": "auto",
        "workers": 8,
    },
    "card": {"trained_on": None, "licence": None},  # no default
}


def test_the_defaults_and_the_shipped_recipe_are_the_published_ones():
    assert TrainingConfig().to_dict() == PUBLISHED
    assert read_config(CONFIGS / "nodulemc.yaml").to_dict() == PUBLISHED
    assert TrainingConfig().model.architecture == Architecture("inception_i3d", (), (832, 480, 192, 64, 64))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_are_valid_complete_and_name_a_source_for_each_value(path):
    config = read_config(path)
    stated = yaml.safe_load(path.read_text())
    assert {section: set(keys) for section, keys in stated.items()} == {
        section: set(keys) for section, keys in config.to_dict().items()
    }
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and not line.lstrip().startswith("#"):
            assert "#" in line or lines[number - 1].lstrip().startswith("#"), line


@pytest.mark.parametrize(
    ("given", "key"),
    [({}, "trained_on"), ({"licence": "MIT"}, "trained_on"), ({"trained_on": "my hospital's"}, "licence")],
)
def test_whoever_trains_has_to_say_on_what(given, key):
    card = parse_config({"card": given}, "here").card
    with pytest.raises(ConfigError, match=rf"card\.{key} is not given: here: state it in the recipe"):
        card.require("here")
    replace(card, **{key: "said"}, **({"licence": "said"} if not given else {})).require("here")


def test_a_recipe_survives_its_dictionary():
    for model in (
        {"head_widths": [64], "pooling": "centre", "kinetics": "k.pth"},
        {"start_from": "e"},
        {"kinetics": None, "attributes": ["texture", "margin"]},
    ):
        config = parse_config({"model": model, "run": {"epochs": 3, "soft_labels": True}}, "here")
        assert parse_config(config.to_dict(), "there") == config


def test_weights_are_random_only_where_that_is_asked_for():
    assert parse_config({}, "here").model.kinetics == "download"
    assert parse_config({"model": {"kinetics": None}}, "here").model.kinetics is None
    # An ensemble to start from takes their place.
    assert parse_config({"model": {"start_from": "e"}}, "here").model.kinetics is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {epoch: 3}", r"unknown key 'epoch' in run, value 3: .*: known are epochs, central_epochs, batch_size"),
        ("training: {epochs: 3}", r"unknown key 'training' in the recipe"),
        ("run: {epochs: 3.0}", r"run.epochs is 3.0: .*whole number"),
        ("run: {epochs: true}", r"run.epochs is True"),
        ("run: {1.5: 3}", r"unknown key 1.5 in run, value 3"),
        ("run: {samples_per_epoch: 0}", r"samples_per_epoch is 0: .*null or a whole number from 1"),
        ("run: {epochs: 0}", r"run.epochs is 0: .*from 1"),
        ("optimizer: {learning_rate: 1e}", r"learning_rate is '1e': .*give a number above 0 to 1$"),
        ("optimizer: {learning_rate: '1e-4'}", r"learning_rate is '1e-4'"),
        ("optimizer: {learning_rate: true}", r"learning_rate is True"),
        (f"optimizer: {{learning_rate: {'9' * 400}}}", r"learning_rate is 999"),
        ("optimizer: {learning_rate: 0}", r"learning_rate is 0: .*above 0"),
        ("optimizer: {learning_rate: .nan}", r"learning_rate is nan"),
        ("optimizer: {betas: [0.9]}", r"betas is \[0.9\]: .*2 values"),
        ("optimizer: {betas: [0.9, 1.0]}", r"betas is \[0.9, 1.0\]: .*below 1"),
        ("optimizer: {decay: step}", r"decay is 'step': .*none, cosine"),
        ("augmentation: {shift_mm: 3}", r"shift_mm is 3: .*from 0 to 2.5"),
        ("augmentation: {flip_probability: -0.1}", r"flip_probability is -0.1"),
        ("run: {ema_decay: 1}", r"ema_decay is 1: .*below 1"),
        ("run: {precision: half}", r"precision is 'half'"),
        ("model: {backbone: vgg}", r"backbone is 'vgg': .*inception_i3d"),
        ("model: {decoder_widths: [1, 2, 3]}", r"decoder_widths is \[1, 2, 3\]: .*5 values"),
        ("model: {kinetics: k.pth, start_from: e}", r"model.kinetics and model.start_from are both given"),
        ("model: {kinetics: null, start_averaged: true}", r"model.start_averaged without model.start_from"),
        ("model: {kinetics: null, frozen: [backbone]}", r"model.frozen without model.start_from"),
        ("model: {frozen: [backbone, classifier_head]}", r"model.frozen without model.start_from"),
        ("model: {pooling: max}", r"pooling is 'max': .*global, windows_2x2x2, centre"),
        ("model: {kinetics_batch_norm: none}", r"kinetics_batch_norm is 'none': .*frozen, learned, measured"),
        ("run: {head_copies: 1}", r"head_copies fits linear heads to frozen features: .*frozen to \[backbone\]"),
        (
            "{model: {frozen: [backbone], head_widths: [8]}, run: {head_copies: 1}}",
            r"head_copies fits linear heads .*head_widths to \[\]",
        ),
        (
            "{model: {frozen: [fine_stages]}, run: {head_copies: 1}}",
            r"head_copies fits linear heads .*set model.frozen to \[backbone\] and",
        ),
        (
            "{model: {pooling: centre}, run: {head_copies: 1}}",
            r"head_copies fits linear heads .*frozen to \[backbone\] or \[fine_stages\] and",
        ),
        ("run: {head_penalty: 0}", r"head_penalty is 0: .*above 0"),
        (
            "model: {frozen: [aux_model]}",
            r"frozen is \['aux_model'\]: .*some of backbone, fine_stages, class",
        ),
        ("model: {attributes: [malignancy]}", r"attributes is \['malignancy'\]: .*some of spiculation, lobulation"),
        ("model: {attributes: [texture, texture]}", r"attributes is .*each once"),
        ("model: {attributes: [[texture]]}", r"attributes is .*each once"),
        ("run: {soft_labels: 1}", r"soft_labels is 1: .*true or false"),
        ("run: {attribute_weight: -1}", r"attribute_weight is -1: .*from 0"),
        ("model: {kinetics: ''}", r"kinetics is '': .*null or a text"),
        ("card: {licence: 5}", r"licence is 5"),
        ("run: 5", r"run is 5: .*mapping"),
        ("- 1", r"the recipe is \[1\]"),
        ("run: {epochs: 1, epochs: 2}", r"malformed YAML .*repeated key 'epochs'"),
        ("run: {epochs: 1", r"malformed YAML"),
        ("card: {trained_on: 2026-13-01}", r"malformed YAML .*month"),
        ("card: !!timestamp soon", r"malformed YAML"),
        ("[" * 5000, r"malformed YAML"),
        ("model: {attributes: !!set {texture}}", r"malformed YAML .*set"),
        ("run: !!python/name:os.system ''", r"malformed YAML"),
    ],
)
def test_anything_else_is_refused_with_key_and_value(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1E-4", 1e-4), (".5e-3", 5e-4), ("1", 1), ("1.0e-4", 1e-4)]
)
def test_a_number_may_have_an_exponent(tmp_path, text, value):
    (tmp_path / "recipe.yaml").write_text(f"optimizer: {{learning_rate: {text}}}\ncard: {{trained_on: LUNA25-1e4}}\n")
    config = read_config(tmp_path / "recipe.yaml")
    assert (config.optimizer.learning_rate, config.card.trained_on) == (value, "LUNA25-1e4")
    assert type(config.optimizer.learning_rate) is float


def test_a_replaced_value_is_checked_as_well():
    with pytest.raises(ValueError, match="ema_decay"):
        replace(TrainingConfig().run, ema_decay=1.5)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        read_config(tmp_path / "none.yaml")


def test_the_learning_rate_rises_holds_and_falls():
    constant = OptimizerConfig(learning_rate=0.1)
    assert [constant.rate_at(step, 10) for step in (0, 9)] == [0.1, 0.1]
    shaped = OptimizerConfig(learning_rate=0.1, warmup_steps=4, decay="cosine")
    rates = [shaped.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[1] == pytest.approx(0.04, rel=0.01)
    assert rates[50] == pytest.approx(0.05)
    assert max(rates) == rates[4] == pytest.approx(0.1, rel=0.01)
    assert rates[99] < 1e-4


@pytest.mark.parametrize(
    ("section", "frozen"),
    [
        ({}, True),
        ({"kinetics": "package"}, True),
        ({"kinetics_batch_norm": "learned"}, False),
        ({"kinetics_batch_norm": "measured"}, False),
        ({"kinetics_batch_norm": "measured", "frozen": ["backbone"]}, True),
        ({"kinetics_batch_norm": "measured", "frozen": ["fine_stages"]}, False),
        ({"kinetics": None}, False),
        ({"start_from": "e"}, False),
        ({"start_from": "e", "frozen": ["backbone"]}, True),
        ({"start_from": "e", "frozen": ["classifier_head"]}, False),
    ],
)
def test_batch_norm_is_frozen_at_the_values_of_videos_or_with_the_backbone(section, frozen):
    assert parse_config({"model": section}, "here").model.freezes_batch_norm is frozen
