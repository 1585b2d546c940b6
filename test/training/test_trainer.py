import math
import signal
import socket
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import pytest
import torch
from ensembles import make_untrained_ensemble, untrained_weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training.toys import RatedToy, ToyMultiTask, create_toy, rated_data, toy_data

from nodulemc.ensemble.manifest import write_manifest
from nodulemc.ensemble.trained_cases import TrainedCase, write_trained_cases
from nodulemc.errors import ConfigError, EnsembleError, ResourceError, TableError, TrainingError
from nodulemc.models.architecture import Architecture
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training import trainer
from nodulemc.training.config import parse_config
from nodulemc.training.dataset import BalancedBatchSampler
from nodulemc.training.devices import create_accelerator
from nodulemc.training.run_state import load_checkpoint, save_checkpoint
from nodulemc.training.trainer import TrainingData, create_network, train_seed
from nodulemc.training.warm_start import lacks_attributes, start_cases

pytestmark = pytest.mark.heavy

RUN_TOY = Path(__file__).parent / "run_toy.py"
EPOCHS = 3  # of runs in processes of their own


def config(learning_rate=0.01, **run):
    settings = {"epochs": 2, "batch_size": 4, "workers": 0, "precision": "fp32"} | run
    sections = {"model": {"kinetics": None}, "run": settings, "optimizer": {"learning_rate": learning_rate}}
    return parse_config(sections, "test")


def train(folder, recipe, *, resume=False, data=None, create=create_toy, seed=5):
    accelerator = create_accelerator("fp32")
    return train_seed(recipe, data or toy_data(), folder, seed, accelerator, resume=resume, create=create)


def start(folder, *, batch_norm=True, epochs=EPOCHS, rated=False, **environment) -> BaseProcess:
    return forked.start(RUN_TOY, folder, batch_norm, epochs, rated, ACCELERATE_USE_CPU="true", **environment)


def finished_weights(folder, *processes) -> dict[str, torch.Tensor]:
    for process in processes:
        assert forked.code_of(process) == 0
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The folder of a run to its end."""
    folder = tmp_path_factory.mktemp("unbroken")
    finished_weights(folder, start(folder))
    return folder


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(unbroken, tmp_path):
    folder = tmp_path / "killed"
    killed = start(folder)
    # Its first checkpoint is written, so it is somewhere in a later epoch.
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    assert forked.code_of(killed) == -signal.SIGKILL
    assert not (folder / "weights.pt").exists()
    assert 1 <= load_checkpoint(folder / "checkpoint.pt").epochs_done < EPOCHS
    resumed = finished_weights(folder, start(folder))
    expected = finished_weights(unbroken)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name
    rows = [(run / "metrics.csv").read_text().splitlines() for run in (unbroken, folder)]
    # All but the seconds.
    assert [line.split(",")[2:] for line in rows[0]] == [line.split(",")[2:] for line in rows[1]]
    assert len(rows[1]) == 1 + EPOCHS
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("epoch/epoch")] == [1, 2, 3]


@pytest.mark.parametrize("rated", [False, True])
def test_two_processes_train_like_one(tmp_path, rated):
    # BatchNorm would see half the batch in each process, so the network has none, as with frozen BatchNorm.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    kind = {"batch_norm": False, "epochs": 2, "rated": rated}
    pair = [start(tmp_path / "two", RANK=str(k), LOCAL_RANK=str(k), **kind, **common) for k in range(2)]
    two = finished_weights(tmp_path / "two", *pair)
    one = finished_weights(tmp_path / "one", start(tmp_path / "one", **kind))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    # Losses, AUC and Dice are those of all samples.
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines()[1:] for name in ("one", "two")]
    for single, double in zip(*rows, strict=True):
        numbers = [[float(cell) for cell in row.split(",")[2:]] for row in (single, double)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-3, abs=1e-5)


def test_a_compiled_step_learns_the_same_and_its_run_can_go_on_without_the_compiler(unbroken, tmp_path):
    # Dynamo traces the step; its "eager" backend then runs it without a C++ compiler.
    compiled = finished_weights(tmp_path, start(tmp_path, ACCELERATE_DYNAMO_BACKEND="EAGER"))
    for name, value in finished_weights(unbroken).items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)
    again = train(tmp_path, config(epochs=EPOCHS), resume=True).state_dict
    assert all(torch.equal(again[name], value) for name, value in compiled.items())


def test_training_learns_both_tasks(tmp_path):
    trained = train(tmp_path, config(learning_rate=0.05, epochs=4))
    first, last = trained.history[0], trained.history[-1]
    assert last["train_dice_loss"] < first["train_dice_loss"]
    assert last["validation_auc"] == 1.0
    assert trained.state_dict.keys() == ToyMultiTask().state_dict().keys()


class Watched(ToyMultiTask):
    """Keeps the shapes of what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def forward_multitask(self, x, mask_size):
        if self.training:
            self.shapes.append((tuple(x.shape[2:]), mask_size))
        return super().forward_multitask(x, mask_size)


def test_central_epochs_come_first_and_see_half_the_patch_along_each_axis(tmp_path):
    watched = Watched()
    trained = train(tmp_path, config(epochs=3, central_epochs=2), create=lambda *_: PatchNetwork(watched))
    # Two steps per epoch; validation is on whole patches in every one.
    assert watched.shapes == [((32, 64, 64), 32)] * 4 + [((64, 128, 128), 64)] * 2
    assert all(row["validation_dice"] > 0 for row in trained.history)


class Poisoned(ToyMultiTask):
    """Becomes NaN in a step of its choosing."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.calls, self.step = 0, step

    def forward_multitask(self, x, mask_size):
        logits, masks = super().forward_multitask(x, mask_size)
        self.calls += self.training
        return (logits * float("nan") if self.calls == self.step else logits), masks


def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_good_epoch(tmp_path):
    # Two steps per epoch; the fourth step is in the second.
    with pytest.raises(TrainingError, match=r"the loss became nan in step 4, epoch 2: .*last good epoch"):
        train(tmp_path, config(epochs=3), create=lambda *_: PatchNetwork(Poisoned(4)))
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert checkpoint.epochs_done == 1
    assert all(torch.isfinite(v).all() for v in (*checkpoint.network.values(), *checkpoint.ema.values()))
    assert train(tmp_path, config(epochs=3), resume=True).history[-1]["epoch"] == 3


def test_a_loss_that_is_nan_in_the_first_epoch_promises_no_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss became nan in step 1, epoch 1: .*no epoch was finished"):
        train(tmp_path, config(), create=lambda *_: PatchNetwork(Poisoned(1)))


class Outgrown(ToyMultiTask):
    """Asks for more memory than there is, of PyTorch's own allocator."""

    def forward_multitask(self, x, mask_size):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_too_little_memory_names_the_batch_and_the_remedy(tmp_path):
    with pytest.raises(ResourceError, match=r"too little memory for 4 samples at a time: cpu: .*run\.batch_size"):
        train(tmp_path, config(), create=lambda *_: PatchNetwork(Outgrown()))


class SpoiltInValidation(ToyMultiTask):
    """What a last step with infinite gradients would leave."""

    def forward_multitask(self, x, mask_size):
        logits, masks = super().forward_multitask(x, mask_size)
        return logits if self.training else logits * float("nan"), masks


def test_weights_that_are_spoilt_by_an_epochs_last_step_are_not_kept(tmp_path):
    with pytest.raises(TrainingError, match="validation cross-entropy became nan in step 2, epoch 1"):
        train(tmp_path, config(epochs=1), create=lambda *_: PatchNetwork(SpoiltInValidation()))
    assert not (tmp_path / "checkpoint.pt").exists()


def without_validation() -> TrainingData:
    return replace(toy_data(), train=range(12), validation=[])


def test_training_on_everything_keeps_the_last_average_and_says_nothing_of_validation(tmp_path):
    trained = train(tmp_path, config(epochs=2), data=without_validation())
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert set(trained.history[-1]) == {"epoch", "seconds", "train_loss", "train_cross_entropy", "train_dice_loss"}
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == "epoch,seconds,train_loss,train_cross_entropy,train_dice_loss"
    assert len(rows) == 2
    averaged = load_checkpoint(tmp_path / "checkpoint.pt").ema
    assert all(torch.equal(averaged[f"network.{name}"], value) for name, value in trained.state_dict.items())
    again = train(tmp_path, config(epochs=2), data=without_validation(), resume=True)
    assert again.history == trained.history


class SpoiltByTheLastStep(ToyMultiTask):
    """A finite loss whose gradient, of a root at zero, is none."""

    def forward_multitask(self, x, mask_size):
        logits, masks = super().forward_multitask(x, mask_size)
        return logits + torch.sqrt(self.head.weight.sum() * 0), masks


def test_spoilt_weights_are_not_kept_where_nothing_validates_them(tmp_path):
    # One step per epoch: the next step's loss would tell.
    recipe = config(epochs=1, samples_per_epoch=4)
    with pytest.raises(
        TrainingError, match=r"the largest averaged weight became nan in step 1, epoch 1: .*no epoch was"
    ):
        train(tmp_path, recipe, data=without_validation(), create=lambda *_: PatchNetwork(SpoiltByTheLastStep()))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_is_not_overwritten_and_not_continued_with_anything_else(tmp_path):
    recipe = config(epochs=1)
    train(tmp_path, recipe)
    with pytest.raises(ConfigError, match="--resume"):
        train(tmp_path, recipe)
    with pytest.raises(ConfigError, match=r"started with run.ema_decay 0.998, now it is 0.9"):
        train(tmp_path, config(epochs=1, ema_decay=0.9), resume=True)
    with pytest.raises(ConfigError, match="seed is 5, not 6"):
        train(tmp_path, recipe, resume=True, seed=6)
    data = toy_data()
    with pytest.raises(ConfigError, match="other samples or another split"):
        train(tmp_path, recipe, resume=True, data=replace(data, train=list(data.train)[1:]))
    # How the samples are read changes nothing.
    assert len(train(tmp_path, config(epochs=1, workers=1), resume=True).history) == 1


def test_one_run_at_a_time(tmp_path):
    recipe = config(epochs=1)

    def create_while_another_starts(model, seed):
        for resume in (False, True):
            with pytest.raises(ConfigError, match="another run is training this seed"):
                train(tmp_path, recipe, resume=resume)
        return create_toy(model, seed)

    train(tmp_path, recipe, create=create_while_another_starts)
    train(tmp_path, recipe, resume=True)


def test_the_checkpoint_holds_the_whole_state(tmp_path):
    recipe = config(epochs=1)
    trained = train(tmp_path, recipe)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert set(checkpoint.random) == {"torch", "cuda", "numpy", "python"}
    assert len(checkpoint.optimizer["state"]) == len(list(ToyMultiTask().parameters()))
    assert checkpoint.ema_updates == 2
    averaged = {name.removeprefix("network."): value for name, value in checkpoint.ema.items()}
    assert all(torch.equal(averaged[name], value) for name, value in trained.state_dict.items())
    # The average is not the network itself.
    assert not torch.equal(checkpoint.ema["network.conv.weight"], checkpoint.network["network.conv.weight"])


RATED = {"kinetics": None, "attributes": ["texture"]}


def rated_config(model=RATED, **run):
    settings = {"epochs": 2, "batch_size": 4, "workers": 0, "precision": "fp32"} | run
    return parse_config({"model": model, "run": settings, "optimizer": {"learning_rate": 0.05}}, "test")


def test_attributes_are_learned_beside_both_tasks(tmp_path):
    trained = train(tmp_path, rated_config(epochs=6), data=rated_data())
    first, last = trained.history[0], trained.history[-1]
    assert last["train_attribute_loss"] < first["train_attribute_loss"]
    parts = last["train_cross_entropy"] + 0.5 * last["train_dice_loss"] + 0.5 * last["train_attribute_loss"]
    assert last["train_loss"] == pytest.approx(parts, abs=1e-6)
    assert {"attribute_head.weight", "attribute_head.bias"} <= trained.state_dict.keys()
    assert 0 < last["validation_texture_mae"] < 4
    assert -1 <= last["validation_texture_spearman"] <= 1
    assert math.isfinite(last["validation_auc"])


def test_a_killed_run_with_attributes_goes_on_as_if_it_had_not_been(tmp_path):
    unbroken = train(tmp_path / "unbroken", rated_config(), data=rated_data())

    class Killed(RatedToy):
        calls = 0

        def forward_multitask(self, x, mask_size):
            Killed.calls += self.training
            if Killed.calls == 4:
                raise KeyboardInterrupt
            return super().forward_multitask(x, mask_size)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", rated_config(), data=rated_data(), create=lambda *_: PatchNetwork(Killed()))
    resumed = train(tmp_path / "killed", rated_config(), data=rated_data(), resume=True)
    assert all(torch.equal(resumed.state_dict[name], value) for name, value in unbroken.state_dict.items())


def test_a_checkpoint_of_another_head_is_refused(tmp_path):
    train(tmp_path / "without", config(epochs=1), data=rated_data())
    message = r"started with model.attributes \[\], now it is \['texture'\]"
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "without", rated_config(epochs=1), data=rated_data(), resume=True)
    # One that was written before there were any heads.
    checkpoint = load_checkpoint(tmp_path / "without" / "checkpoint.pt")
    del checkpoint.recipe["model"]["attributes"], checkpoint.recipe["run"]["soft_labels"]
    save_checkpoint(tmp_path / "without" / "checkpoint.pt", checkpoint)
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "without", rated_config(epochs=1), data=rated_data(), resume=True)
    assert len(train(tmp_path / "without", config(epochs=1), data=rated_data(), resume=True).history) == 1
    # Of other ratings.
    train(tmp_path / "with", rated_config(epochs=1), data=rated_data())
    other = rated_data()
    other.store.table[0]["texture"] = 4.75
    with pytest.raises(ConfigError, match="other samples or another split"):
        train(tmp_path / "with", rated_config(epochs=1), data=other, resume=True)


def test_a_rating_that_nobody_has_is_refused(tmp_path):
    data = rated_data()
    for row in data.store.table:
        row["texture"] = row["malignancy"] = None
    data.store.table[11] |= {"texture": 2.0, "malignancy": 2.0}  # of the validation side
    with pytest.raises(TableError, match=r"no sample to train on has a rating of texture: toys: .* column and readers"):
        train(tmp_path, rated_config(), data=data)
    with pytest.raises(TableError, match="no sample to train on has a rating of malignancy"):
        train(tmp_path, rated_config(model={"kinetics": None}, soft_labels=True), data=data)


def test_soft_labels_are_the_mean_malignancy_where_it_is_known():
    data = rated_data()
    hard, soft = data.targets(soft=False), data.targets(soft=True)
    assert [k for k, target in enumerate(hard) if math.isnan(target)] == [0, 4, 8]
    assert soft[[0, 1, 2, 3]].tolist() == [0.125, 0.625, 0.125, 0.625]
    assert math.isnan(soft[4])  # neither label nor rating
    data.labels[4] = 0
    assert data.targets(soft=True)[4] == 0


class ClassOnly(ToyMultiTask):
    """Keeps what the loss's gradient is with respect to each logit."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients = []

    def forward_multitask(self, x, mask_size):
        logits, masks = super().forward_multitask(x, mask_size)
        if self.training:
            logits.register_hook(self.gradients.append)
        return logits, masks


def test_undecided_samples_are_not_learned_from_for_the_class(tmp_path):
    network = ClassOnly()
    recipe = config(epochs=8, batch_size=8, samples_per_epoch=16)
    data = rated_data()
    train(tmp_path / "hard", recipe, data=data, create=lambda *_: PatchNetwork(network))
    without = [int((gradient == 0).sum()) for gradient in network.gradients]
    draws = [
        sampler.index
        for epoch in range(8)
        for batch in epoch_of(
            BalancedBatchSampler(data.train, [data.labels[k] for k in data.train], batch_size=8, samples=16, seed=5),
            epoch,
        )
        for sampler in batch
    ]
    undecided = [data.labels[k] is None for k in draws]
    assert without == [sum(undecided[start : start + 8]) for start in range(0, len(draws), 8)]
    assert sum(without) > 0


def epoch_of(sampler: BalancedBatchSampler, epoch: int) -> BalancedBatchSampler:
    sampler.epoch = epoch
    return sampler


def test_a_new_attribute_head_changes_no_other_weight(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8))
    make_untrained_ensemble(tmp_path, (2000,), architecture=architecture, dtype=torch.float32)
    sections = {"decoder_widths": [8] * 5, "attributes": ["texture", "spiculation"]}
    fresh = parse_config({"model": sections | {"kinetics": None}}, "test").model
    states = []
    for model in (fresh, replace(fresh, attributes=())):
        torch.manual_seed(3)
        states.append(create_network(model, 2000).network.state_dict())
    head = {name: value.shape for name, value in states[0].items() if name not in states[1]}
    assert head == {"attribute_head.weight": (2, 1024 + 192), "attribute_head.bias": (2,)}
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())

    tuning = parse_config({"model": sections | {"start_from": str(tmp_path)}}, "test").model
    assert lacks_attributes(tuning, 2000)
    torch.manual_seed(3)
    tuned = create_network(tuning, 2000)
    expected = untrained_weights(architecture, 2000) | {name: states[0][name] for name in head}
    for name, value in tuned.network.state_dict().items():
        assert not value.is_floating_point() or torch.equal(value, expected[name]), name


def test_an_attribute_head_is_taken_over_and_never_dropped(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8), attributes=("texture",))
    make_untrained_ensemble(tmp_path, (2000,), architecture=architecture, dtype=torch.float32)
    model = parse_config({"model": {"decoder_widths": [8] * 5, "start_from": str(tmp_path)}}, "test").model
    assert not lacks_attributes(model, 2000)
    network = create_network(replace(model, attributes=("texture",)), 2000).network
    assert torch.equal(network.attribute_head.weight, untrained_weights(architecture, 2000)["attribute_head.weight"])
    for attributes in ((), ("margin",)):
        with pytest.raises(EnsembleError, match=r"seed 2000 is .*attributes=\('texture',\).*, the recipe "):
            create_network(replace(model, attributes=attributes), 2000)


def test_the_full_network_starts_from_random_weights_with_batch_norm_learning():
    model = parse_config({"model": {"decoder_widths": [8, 8, 8, 8, 8], "kinetics": None}}, "test").model
    network = create_network(model, 5)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("batch_norm", ["frozen", "learned"])
def test_kinetics_weights_fill_the_backbone_whose_batch_norm_is_frozen_or_learns(batch_norm, tmp_path):
    sections = {"decoder_widths": [8, 8, 8, 8, 8], "kinetics": None, "kinetics_batch_norm": batch_norm}
    model = parse_config({"model": sections}, "test").model
    donor = create_network(model, 5).network.backbone.state_dict()
    donor = {name: torch.full_like(value, 0.01) for name, value in donor.items() if value.is_floating_point()}
    file = tmp_path / "model_rgb.pth"
    classifier = {"conv3d_0c_1x1.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1)}
    torch.save({**donor, **classifier, "conv3d_0c_1x1.conv3d.bias": torch.zeros(400)}, file)
    network = create_network(replace(model, kinetics=str(file)), 5).network
    loaded = network.backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in donor.items())
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    of_batch_norm = {n for n, _ in network.named_parameters() if n.startswith("backbone.") and ".batch3d." in n}
    assert frozen == (of_batch_norm if batch_norm == "frozen" else set())


@pytest.mark.parametrize(("source", "package"), [("download", False), ("package", True)])
def test_kinetics_weights_can_be_downloaded(source, package, monkeypatch):
    asked, used = [], []
    monkeypatch.setattr(
        trainer, "fetch_kinetics", lambda *where, **which: asked.append((*where, which)) or Path("fetched")
    )
    monkeypatch.setattr(trainer, "load_kinetics", lambda network, backbone, path: used.append((backbone, path)))
    create_network(parse_config({"model": {"decoder_widths": [8] * 5, "kinetics": source}}, "test").model, 5)
    assert asked == [("inception_i3d", Path.home() / ".cache" / "nodulemc", {"package": package})]
    assert used == [("inception_i3d", Path("fetched"))]


def test_training_starts_from_the_ensembles_seed_of_the_same_number_decoder_included(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8))
    make_untrained_ensemble(tmp_path, (2000, 2001), architecture=architecture, dtype=torch.float32)
    model = parse_config({"model": {"decoder_widths": [8] * 5, "start_from": str(tmp_path)}}, "test").model
    network = create_network(model, 2001).network
    expected = untrained_weights(architecture, 2001)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, expected[name]), name
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(EnsembleError, match=r"no seed 2002 to start from.*--seeds from 2000, 2001"):
        create_network(model, 2002)
    with pytest.raises(EnsembleError, match=r"seed 2000 is .*decoder_widths=.8, 8, 8, 8, 8.*, the recipe .*16"):
        create_network(replace(model, decoder_widths=(16,) * 5), 2000)


def test_all_seeds_start_from_an_ensembles_only_one(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8))
    make_untrained_ensemble(tmp_path, (2000,), architecture=architecture, dtype=torch.float32)
    model = parse_config({"model": {"decoder_widths": [8] * 5, "start_from": str(tmp_path)}}, "test").model
    only = untrained_weights(architecture, 2000)
    for seed in (2001, 2002):
        started = create_network(model, seed).network.state_dict()
        assert all(torch.equal(started[name], value) for name, value in only.items() if value.is_floating_point())


def test_every_seed_starts_from_the_mean_of_an_ensembles_members(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8))
    make_untrained_ensemble(tmp_path, (2000, 2001), architecture=architecture, dtype=torch.float32)
    sections = {"decoder_widths": [8] * 5, "start_from": str(tmp_path), "start_averaged": True}
    one, other = (untrained_weights(architecture, seed) for seed in (2000, 2001))
    started = create_network(parse_config({"model": sections}, "test").model, 7).network.state_dict()
    for name, value in one.items():
        if value.is_floating_point():
            torch.testing.assert_close(started[name], (value + other[name]) / 2, msg=name)


def test_a_run_whose_network_was_another_one_is_not_resumed(tmp_path):
    train(tmp_path, config(epochs=1))
    path = tmp_path / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    (name,) = [name for name in checkpoint.network if name.endswith("aux_model.weight")]
    network = checkpoint.network | {name: checkpoint.network[name][:, :1]}
    save_checkpoint(path, replace(checkpoint, network=network))
    with pytest.raises(ConfigError, match=r"another version started the run: .*checkpoint.pt: delete it"):
        train(tmp_path, config(epochs=1), resume=True)


def test_frozen_parts_keep_the_weights_and_the_statistics_they_start_with(tmp_path):
    architecture = Architecture("inception_i3d", (), (8, 8, 8, 8, 8), attributes=("texture",))
    make_untrained_ensemble(tmp_path / "start", (5,), architecture=architecture, dtype=torch.float32)
    sections = {"decoder_widths": [8] * 5, "attributes": ["texture"], "start_from": str(tmp_path / "start")}
    run = {"epochs": 1, "central_epochs": 1, "batch_size": 2, "samples_per_epoch": 4, "workers": 0, "precision": "fp32"}
    recipe = parse_config({"model": sections | {"frozen": ["backbone", "classifier_head"]}, "run": run}, "test")
    trained = train(tmp_path / "run", recipe, data=rated_data(), create=create_network).state_dict
    begun = untrained_weights(architecture, 5)
    changed = {name.split(".")[0] for name, value in begun.items() if not torch.equal(trained[name], value)}
    assert changed == {"aux_model", "attribute_head"}


def test_a_mean_was_trained_on_all_its_members_cases(tmp_path):
    manifest = make_untrained_ensemble(tmp_path, (2000, 2001))
    first, second, both = (TrainedCase(f"1.{k}", f"p{k}") for k in range(3))
    digest = write_trained_cases(tmp_path, {"seed_2000": {first, both}, "seed_2001": {second, both}})
    write_manifest(tmp_path, replace(manifest, trained_cases=digest))
    model = parse_config({"model": {"start_from": str(tmp_path)}}, "test").model
    own, every = start_cases(model, 2001), start_cases(replace(model, start_averaged=True), 2001)
    assert (own, every) == ({second, both}, {first, second, both})


@pytest.mark.parametrize("processes", [3])
def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, processes, monkeypatch):
    accelerator = create_accelerator("fp32")
    monkeypatch.setattr(type(accelerator), "num_processes", processes)
    with pytest.raises(ConfigError, match=r"run.batch_size is 4: 3 processes"):
        train_seed(config(), toy_data(), tmp_path, 5, accelerator, resume=False, create=create_toy)
