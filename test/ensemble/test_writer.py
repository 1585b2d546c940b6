import pytest
import safetensors.torch
import torch

from nodulemc.ensemble import writer as ensemble_writer
from nodulemc.ensemble.manifest import read_manifest
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.tensor_shapes import tensor_shapes

ARCHITECTURE = Architecture("inception_i3d")
BIAS = "classifier_head.2.bias"


def write(folder, change, source=None):
    tensors = {name: torch.zeros(shape) for name, shape in tensor_shapes(ARCHITECTURE, with_decoder=False).items()}
    seeds = [
        MemberWeights(f"seed_{k}", ARCHITECTURE, tensors | new, source=source) for k, new in enumerate(({}, change))
    ]
    return write_ensemble(folder, seeds, trained_on="zeros", licence=None, dtype=torch.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({BIAS: torch.tensor([torch.nan])}, "NaN or infinite weights"),
        ({BIAS: torch.tensor([1e5])}, "NaN or infinite weights"),  # in half precision
        ({BIAS: torch.zeros(2)}, "of another shape"),
        ({BIAS: torch.zeros(1, dtype=torch.int64)}, "of type I64"),
        ({"backbone.conv3d_1a_7x7.batch3d.running_var": -torch.ones(64)}, "variance below 0"),
    ],
)
def test_bad_tensors_leave_the_ensemble_that_is_there(tmp_path, change, message):
    (tmp_path / "ensemble.json").write_text("old")
    with pytest.raises(EnsembleError, match=rf"{message}.*seed_1\.safetensors"):
        write(tmp_path, change)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("ensemble.json", "old")]


def test_a_network_that_overflows_on_the_probes_makes_no_ensemble(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_writer, "_deviations", lambda *_: {"bf16": float("nan"), "fp16": float("nan")})
    with pytest.raises(EnsembleError, match=r"overflows on the probes: .*best\.pth"):
        write(tmp_path, {}, source="best.pth")
    assert not (tmp_path / "ensemble.json").exists()


def test_an_older_list_of_training_cases_goes_with_its_ensemble(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_writer, "_deviations", lambda *_: {"bf16": 0.001})
    (tmp_path / "trained_cases.csv").write_text("another ensemble's")
    assert write(tmp_path, {}).trained_cases is None
    assert not (tmp_path / "trained_cases.csv").exists()


def test_tensors_may_share_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_writer, "_deviations", lambda *_: {"bf16": 0.001})
    shared = torch.ones(64, dtype=torch.float16)
    norm = "backbone.conv3d_1a_7x7.batch3d"
    manifest = write(tmp_path, {f"{norm}.weight": shared, f"{norm}.bias": shared})
    assert manifest == read_manifest(tmp_path)
    assert safetensors.torch.load_file(tmp_path / "seed_1.safetensors")[f"{norm}.bias"].sum() == 64
