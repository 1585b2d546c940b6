"""The whole way once, with the full-size backbone: a block store in, an ensemble that predicts out."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from ensembles import make_untrained_ensemble, shrunk_probe
from training.toy_store import ToyStore

from nodulemc.cli import main
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.data.block_store import BlockWriter
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import EnsembleManifest, read_manifest, write_manifest
from nodulemc.ensemble.trained_cases import TrainedCase, write_trained_cases
from nodulemc.models.architecture import Architecture
from nodulemc.training import export, trainer
from nodulemc.training.export import DataSummary
from nodulemc.training.trainer import TrainedSeed

pytestmark = pytest.mark.heavy

RECIPE = """
model: {decoder_widths: [8, 8, 8, 8, 8], kinetics: null}
run: {epochs: 1, central_epochs: 1, batch_size: 2, samples_per_epoch: 2, workers: 0, precision: fp32}
card: {trained_on: toys, licence: Apache-2.0}
"""


@pytest.fixture
def arguments(tmp_path):
    toys = ToyStore(4)
    with BlockWriter(tmp_path / "store") as writer:
        for k in range(4):
            block = toys[k]
            x, y, z = block.point.tolist()
            block.row.update(PatientID=f"p{k}", SeriesInstanceUID=f"1.{k}", AnnotationID=f"a{k}", label=k % 2)
            block.row.update(CoordX=x, CoordY=y, CoordZ=z)
            writer.add(block)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a0", "a1"], "validation": ["a2", "a3"]}))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return [
        "train",
        str(tmp_path / "recipe.yaml"),
        *("--store", str(tmp_path / "store"), "--split", str(tmp_path / "split.json")),
        *("--output", str(tmp_path / "run"), "--seeds", "7"),
    ]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (["-1"], "error: --seeds -1: nodulemc train: give 0 to 4294967295"),
        (["4294967296"], "error: --seeds 4294967296"),
        (["7", "8", "7"], "error: seed 7 is given twice"),
        (["8", "9"], "error: a training run is there already"),
    ],
)
def test_seeds_are_checked_before_any_is_trained(arguments, seeds, message, tmp_path, capsys):
    (tmp_path / "run" / "seed_9").mkdir(parents=True)
    (tmp_path / "run" / "seed_9" / "checkpoint.pt").touch()
    assert main([*arguments[:-1], *seeds]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["seed_9"]


def test_an_output_that_cannot_be_made_is_told_before_training(arguments, tmp_path, capsys):
    (tmp_path / "run").touch()
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: cannot make the folder (File exists): ")


def test_a_seed_that_lacks_its_start_is_told_before_training(arguments, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("model: {", f"model: {{start_from: {tmp_path / 'none'}, "))
    assert main(arguments) == 2
    assert "error: no ensemble.json, as this is no folder: " in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_the_data_are_named_before_anything_is_trained(arguments, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("trained_on: toys, ", ""))
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: card.trained_on is not given: {tmp_path}/recipe.yaml: "
        "state it in the recipe, for example: LUNA25 training set (NLST)\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def trained(monkeypatch):
    """Which blocks each seed would train on and validate on, and what would be exported of them."""
    seen = {}

    def train_seed(config, data, folder, seed, accelerator, *, resume):
        seen[seed] = (data.train, data.validation)
        return TrainedSeed(seed, {}, [{"train_loss": 0.75}])

    def export_ensemble(folder, seeds, config, data, **facts):
        seen.update(summaries=data, **facts)
        return EnsembleManifest((), "toys", max_deviation={"bf16": 0.001})

    monkeypatch.setattr(trainer, "train_seed", train_seed)
    monkeypatch.setattr(export, "export_ensemble", export_ensemble)
    return seen


def test_each_seed_may_have_a_split_of_its_own(arguments, trained, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"train": ["a2", "a3"], "validation": ["a0", "a1"]}))
    (tmp_path / "all.json").write_text(json.dumps({"train": ["a0", "a1", "a2", "a3"], "validation": []}))
    splits = [str(tmp_path / name) for name in ("split.json", "other.json", "all.json")]
    place = arguments.index("--split") + 1
    assert main([*arguments[:place], *splits, *arguments[place + 1 : -1], "7", "5", "6"]) == 0
    assert (trained[7], trained[5], trained[6]) == (([0, 1], [2, 3]), ([2, 3], [0, 1]), ([0, 1, 2, 3], []))
    assert trained["summaries"] == [DataSummary(2, 1, 2, 1), DataSummary(2, 1, 2, 1), DataSummary(4, 2, 0, 0)]


def test_one_split_serves_all_seeds_and_two_serve_no_three(arguments, trained, capsys):
    assert main([*arguments, "8", "9"]) == 0
    assert trained[7] == trained[8] == trained[9] == ([0, 1], [2, 3])
    assert trained["summaries"] == [DataSummary(2, 1, 2, 1)]
    place = arguments.index("--split") + 1
    assert main([*arguments[:place], arguments[place], *arguments[place:], "8", "9"]) == 2
    assert "error: 2 splits for 3 seeds: --split: give one for all seeds" in capsys.readouterr().err


@pytest.mark.usefixtures("trained")
def test_a_head_that_the_start_lacks_is_told(arguments, tmp_path, capsys):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8))
    make_untrained_ensemble(tmp_path / "start", (7,), architecture=architecture)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("kinetics: null", f"start_from: {tmp_path}/start, attributes: [texture]"))
    line = f"seed 7: the attribute head starts from random weights, as {tmp_path}/start has none\n"
    assert main(arguments) == 0
    assert line in capsys.readouterr().out
    recipe.write_text(recipe.read_text().replace(", attributes: [texture]", ""))
    assert main([*arguments, "--resume"]) == 0
    assert "attribute" not in capsys.readouterr().out


def test_what_gave_gradients_is_listed(arguments, trained, tmp_path):
    """Each seed's training side, and what the ensemble that it starts from was trained on."""
    start, earlier = tmp_path / "start", {"seed_7": [TrainedCase("0.1", "p9")], "seed_8": []}
    make_untrained_ensemble(start, (7, 8), architecture=Architecture("inception_i3d", (), (8, 8, 8, 8, 8)))
    sha256 = write_trained_cases(start, earlier)
    write_manifest(start, replace(read_manifest(start), trained_cases=sha256))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("kinetics: null", f"start_from: {start}"))
    (tmp_path / "other.json").write_text(json.dumps({"folds": [["a0"], ["a1", "a2"], ["a3"]]}))
    arguments[arguments.index("--split") + 1] = str(tmp_path / "other.json")
    assert main([*arguments, "8", "--fold", "0"]) == 0
    own = {TrainedCase(f"1.{k}", f"p{k}") for k in (1, 2, 3)}
    assert trained["cases"] == [own | {TrainedCase("0.1", "p9")}, own]
    assert trained["fold"] == 0
    (start / "trained_cases.csv").write_text("damaged")
    assert main([*arguments, "8", "--fold", "0", "--resume"]) == 2


def test_train_writes_an_ensemble_that_predicts(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nodulemc.training.trainer.QUIET_S", 0.0)
    monkeypatch.setattr("nodulemc.ensemble.writer.probe_patches", shrunk_probe)
    assert main(arguments) == 0
    run = tmp_path / "run"
    manifest = read_manifest(run / "ensemble")
    assert manifest.member_names == ["seed_7"]
    assert manifest.trained_on == "toys"
    assert manifest.members[0].seed == 7
    assert manifest.members[0].architecture.decoder_widths is None
    with (run / "ensemble" / "trained_cases.csv").open() as file:
        listed = [tuple(row.values()) for row in csv.DictReader(file)]
    assert listed == [("1.0", "p0", "all"), ("1.1", "p1", "all")]
    # Half precision: two bytes for each of the 12.3 million weights.
    assert (run / "ensemble" / "seed_7.safetensors").stat().st_size == pytest.approx(2 * 12.3e6, rel=0.01)
    ensemble = Ensemble.load(run / "ensemble", device="cpu", precision="fp32")
    probability = ensemble.member_probabilities(np.zeros((1, 64, 64, 64), np.float32))
    assert 0 < probability.item() < 1
    assert ensemble.trained_cases.seen(ScanIds(frozenset({"1.1"}))) == "scan"
    with (run / "seed_7" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    card = (run / "ensemble" / "MODEL_CARD.md").read_text()
    for fact in (
        "Trained on: toys",
        "Trained on: 2 scans of 2 patients",
        "git revision",
        "| training | 2 | 1 |",
        "learning_rate: 0.0001",
    ):
        assert fact in card
    assert f"| 7 | 1 | {float(row['validation_auc']):.4f} |" in card
    shown = capsys.readouterr()
    for line in ("seed 7, epoch 1/1: 1/1, ", "seed 7, epoch 1/1, validation: 1/1, ", "measuring bf16 and fp16: 2/2, "):
        assert line in shown.err
    figures, written = shown.out.splitlines()
    loss, auc = float(row["train_loss"]), float(row["validation_auc"])
    assert figures == f"seed 7, 1 epoch: training loss {loss:.4f}, validation AUC {auc:.4f}"
    assert written.startswith(f"written: {run / 'ensemble'}: 1 member; bf16 differs from fp32 by at most 0.")

    # Again without --resume it refuses.
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
