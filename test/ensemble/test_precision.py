import pytest
import torch

from nodulemc.ensemble import precision
from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.ensemble.precision import choose_device, choose_precision
from nodulemc.errors import ConfigError

CPU, CUDA = "cpu", "cuda"


def measured(**deviations):
    return EnsembleManifest(members=(), trained_on=None, max_deviation=deviations, tolerance=0.004)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((6, 1), "fp32")]
)
def test_gpu_precision_follows_the_compute_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA, measured(bf16=0.004, fp16=0.004)) == expected
    assert choose_precision("auto", CUDA, measured(bf16=0.0041, fp16=0.0041)) == "fp32"
    assert choose_precision("auto", CUDA, measured()) == "fp32"


@pytest.mark.parametrize(
    ("capability", "deviations", "expected"),
    [
        ((7, 5), {"bf16": 0.001}, "fp32"),  # fp16 was not measured, or overflows
        ((7, 5), {"bf16": 0.005, "fp16": 0.0006}, "fp16"),
        ((9, 0), {"bf16": 0.005, "fp16": 0.0006}, "fp16"),
        ((9, 0), {"bf16": 0.001, "fp16": 0.005}, "bf16"),
    ],
)
def test_each_precision_is_judged_by_its_own_deviation(monkeypatch, capability, deviations, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA, measured(**deviations)) == expected


@pytest.mark.parametrize(
    ("instructions", "deviations", "expected"),
    [
        ("AMX", {"bf16": 0.004}, "bf16"),
        ("AMX", {"bf16": 0.0041, "fp16": 0.0001}, "fp32"),
        ("AMX", {}, "fp32"),
        (None, {"bf16": 0.0001}, "fp32"),
    ],
)
def test_cpu_takes_bf16_only_where_it_is_fast_and_known_to_be_exact(monkeypatch, instructions, deviations, expected):
    monkeypatch.setattr(precision, "bf16_instructions", lambda: instructions)
    assert choose_precision("auto", CPU, measured(**deviations)) == expected


def test_a_forced_precision_is_kept():
    assert choose_precision("fp32", CUDA, measured(bf16=0.0)) == "fp32"
    assert choose_precision("bf16", CPU, measured()) == "bf16"


def test_devices(monkeypatch, caplog):
    monkeypatch.setattr(precision, "cuda_is_usable", lambda: False)
    monkeypatch.setattr(precision, "torch_is_built_for_cuda", lambda: True)
    assert choose_device("cpu") == CPU
    assert caplog.text == ""
    assert choose_device("auto") == CPU
    assert "no usable CUDA GPU: running on the CPU" in caplog.text
    with pytest.raises(ConfigError, match="no usable CUDA GPU: --device cuda"):
        choose_device("cuda")
    monkeypatch.setattr(precision, "cuda_is_usable", lambda: True)
    assert choose_device("auto") == CUDA


def test_the_driver_and_pytorch_agree():
    assert precision.cuda_is_usable() == torch.cuda.is_available()
    assert precision.torch_is_built_for_cuda() == (torch.version.cuda is not None)
