import pytest
import torch

from nodulemc import precision
from nodulemc.errors import ConfigError
from nodulemc.manifest import Manifest
from nodulemc.precision import choose_device, choose_precision

CPU, CUDA = "cpu", "cuda"


def measured(deviation):
    return Manifest(members=(), trained_on=None, max_deviation={} if deviation is None else {"bf16": deviation})


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((6, 1), "fp32")]
)
def test_gpu_precision_follows_the_compute_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA, measured(0.005)) == expected
    assert choose_precision("auto", CUDA, measured(0.0051)) == "fp32"
    assert choose_precision("auto", CUDA, measured(None)) == "fp32"


@pytest.mark.parametrize(
    ("instructions", "deviation", "expected"),
    [("AMX", 0.005, "bf16"), ("AMX", 0.0051, "fp32"), ("AMX", None, "fp32"), (None, 0.0001, "fp32")],
)
def test_cpu_takes_bf16_only_where_it_is_fast_and_known_to_be_exact(monkeypatch, instructions, deviation, expected):
    monkeypatch.setattr(precision, "bf16_instructions", lambda: instructions)
    assert choose_precision("auto", CPU, measured(deviation)) == expected


def test_a_forced_precision_is_kept():
    assert choose_precision("fp32", CUDA, measured(0.0)) == "fp32"
    assert choose_precision("bf16", CPU, measured(None)) == "bf16"


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
