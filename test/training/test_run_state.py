import random

import numpy as np
import pytest
import torch

from nodulemc.errors import ConfigError, FileError
from nodulemc.training.run_state import (
    Checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)


def example() -> Checkpoint:
    return Checkpoint(
        recipe={"run": {"epochs": 2, "betas": [0.9, 0.999], "kinetics": None}},
        seed=1,
        data="abc",
        epochs_done=1,
        network={"w": torch.arange(3.0)},
        ema={"w": torch.ones(3)},
        ema_updates=4,
        optimizer={"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        scaler=None,
        random=random_state(),
        history=[{"epoch": 1, "validation_auc": 0.5}],
    )


def test_a_checkpoint_survives_writing_and_reading(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, example())
    found = load_checkpoint(path)
    assert torch.equal(found.network["w"], torch.arange(3.0))
    assert found.recipe == example().recipe
    assert found.optimizer["param_groups"] == example().optimizer["param_groups"]
    assert found.history == example().history
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_random_generators_go_on_from_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.normal(size=3).tolist(), torch.rand(3).tolist()  # noqa: NPY002, S311

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    np.random.normal()  # noqa: NPY002 (leaves a second number for the next call)
    torch.manual_seed(5)
    save_checkpoint(tmp_path / "c.pt", example())
    expected = draw()
    draw()
    restore_random_state(load_checkpoint(tmp_path / "c.pt").random)
    assert draw() == expected


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "cut", {"format": 9}, [1, 2]])
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    if content == "cut":
        save_checkpoint(path, example())
        path.write_bytes(path.read_bytes()[:1000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=r"checkpoint.*: delete it to start this seed again"):
        load_checkpoint(path)


def test_nothing_but_tensors_and_plain_values_is_unpickled(tmp_path):
    torch.save({"format": 1, "network": Checkpoint}, tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        save_checkpoint(tmp_path / "missing" / "c.pt", example())
