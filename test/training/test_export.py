from dataclasses import replace

import pytest
import torch

from nodulemc.ensemble.manifest import EnsembleManifest, Member
from nodulemc.ensemble.trained_cases import TrainedCase
from nodulemc.errors import ConfigError
from nodulemc.models.architecture import Architecture
from nodulemc.training import export
from nodulemc.training.config import parse_config
from nodulemc.training.trainer import TrainedSeed, TrainingData

CONFIG = parse_config({"card": {"trained_on": "toys", "licence": "MIT"}}, "test")
HISTORY = [
    {"validation_auc": auc, "validation_cross_entropy": 0.5, "validation_dice": 0.25, "train_loss": 0.75}
    for auc in (0.9, 0.625)
]
WEIGHTS = {"backbone.w": torch.zeros(1), "aux_model.w": torch.zeros(1)}
SEEDS = [TrainedSeed(seed, WEIGHTS, HISTORY) for seed in (2000, 2001)]


@pytest.fixture
def written(monkeypatch):
    """What is handed to the writer, which has its own tests."""
    seen = {}

    def write(folder, members, **facts):
        folder.mkdir(exist_ok=True)
        seen.update(members=members, **facts)
        described = tuple(Member(f"{m.name}.safetensors", "0", m.architecture, seed=m.seed) for m in members)
        return EnsembleManifest(described, facts["trained_on"], facts["licence"], "abc-dirty", {"bf16": 0.001})

    monkeypatch.setattr(export, "write_ensemble", write)
    return seen


@pytest.mark.parametrize("decoder", [False, True])
def test_the_decoder_is_left_out_unless_asked_for(tmp_path, written, decoder):
    data = TrainingData(None, [0, 1, 1, 0], [0, 1, 2], [3])
    export.export_ensemble(tmp_path / "e", SEEDS, CONFIG, [export.DataSummary.of(data)], decoder=decoder)
    for member in written["members"]:
        assert member.state_dict.keys() == ({"backbone.w", "aux_model.w"} if decoder else {"backbone.w"})
        expected = Architecture("inception_i3d", (), (832, 480, 192, 64, 64) if decoder else None)
        assert member.architecture == expected
    assert [member.seed for member in written["members"]] == [2000, 2001]
    assert written["dtype"] == torch.float16


def test_the_card_states_data_recipe_code_and_metrics(tmp_path, written):
    summary = export.DataSummary(train=5, train_malignant=2, validation=3, validation_malignant=1)
    config = replace(CONFIG, model=replace(CONFIG.model, kinetics="model_rgb.pth"))
    export.export_ensemble(tmp_path / "e", SEEDS, config, [summary], decoder=False)
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    for fact in (
        "Trained on: toys",
        "Licence: MIT",
        "Kinetics-400",
        "git revision abc-dirty",
        "fp32 on probe patches: bf16 0.00100",
        "| training | 5 | 2 |",
        "| validation | 3 | 1 |",
        "| 2001 | 2 | 0.6250 | 0.5000 | 0.2500 | 0.7500 |",
        "ema_decay: 0.998",
    ):
        assert fact in card


def test_the_card_tells_seeds_with_samples_of_their_own_apart(tmp_path, written):
    summaries = [export.DataSummary(5, 2, 3, 1), export.DataSummary(8, 3, 0, 0)]
    unvalidated = TrainedSeed(2001, WEIGHTS, [{"train_loss": 0.75}])
    export.export_ensemble(tmp_path / "e", [SEEDS[0], unvalidated], CONFIG, summaries, decoder=False)
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text().splitlines()
    tables = [card.index(f"Seed {seed}:") for seed in (2000, 2001)]
    assert card[tables[0] + 4 : tables[0] + 6] == ["| training | 5 | 2 |", "| validation | 3 | 1 |"]
    assert card[tables[1] + 4 : tables[1] + 6] == ["| training | 8 | 3 |", "| validation | 0 | 0 |"]
    assert "| 2000 | 2 | 0.6250 | 0.5000 | 0.2500 | 0.7500 |" in card
    assert "| 2001 | 1 | – | – | – | 0.7500 |" in card


def test_attributes_and_undecided_nodules_are_on_the_card(tmp_path, written):
    config = replace(CONFIG, model=replace(CONFIG.model, attributes=("texture", "margin")))
    figures = {f"validation_{n}_{f}": v for n, f, v in (
        ("texture", "spearman", 0.5), ("texture", "mae", 0.75), ("margin", "spearman", 0.25), ("margin", "mae", 1.0),
    )}  # fmt: skip
    head = {"attribute_head.weight": torch.zeros(2, 1216)}
    trained = TrainedSeed(2000, WEIGHTS | head, [HISTORY[-1] | figures])
    data = TrainingData(None, [0, 1, None, None, 1, None], [0, 1, 2, 3], [4, 5])
    export.export_ensemble(tmp_path / "e", [trained], config, [export.DataSummary.of(data)], decoder=False)
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    assert "| training | 4 | 1 | 2 |\n| validation | 2 | 1 | 1 |" in card
    assert "| attribute | 2000: rank correlation | 2000: mean error |" in card
    assert "| texture | 0.500 | 0.750 |\n| margin | 0.250 | 1.000 |" in card
    assert written["members"][0].architecture.attributes == ("texture", "margin")
    assert written["members"][0].state_dict.keys() == {"backbone.w", "attribute_head.weight"}


def test_fold_and_cases_go_with_each_seed(tmp_path, written):
    first, second = frozenset({TrainedCase("1.1", "a"), TrainedCase("1.2", "a")}), frozenset({TrainedCase("1.3", "b")})
    summary = export.DataSummary(3, 1, 0, 0)
    export.export_ensemble(tmp_path, SEEDS, CONFIG, [summary], decoder=False, cases=[first, second], fold=2)
    assert [(member.fold, member.cases) for member in written["members"]] == [(2, first), (2, second)]
    lines = (tmp_path / "MODEL_CARD.md").read_text().splitlines()
    assert "Trained on: 3 scans of 2 patients: see `trained_cases.csv`. Validation scans are not in it." in lines
    config = replace(CONFIG, model=replace(CONFIG.model, kinetics=None, start_from="e"))
    export.export_ensemble(tmp_path, SEEDS, config, [summary], decoder=False, cases=[first, second])
    assert "3 scans of 2 patients, those of the ensemble" in (tmp_path / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("written")
def test_weights_without_a_word_on_their_data_are_not_exported(tmp_path):
    with pytest.raises(ConfigError, match=r"card\.trained_on is not given"):
        export.export_ensemble(tmp_path / "e", SEEDS, parse_config({}, "test"), [], decoder=False)
    assert not (tmp_path / "e").exists()
