"""Which device and which number format an ensemble runs in."""

import logging
from pathlib import Path

import torch

from nodulemc.errors import ConfigError
from nodulemc.manifest import TOLERANCE, Manifest

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(requested: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; auto warns where a CUDA build finds no GPU.

    Raises:
        ConfigError: ``cuda`` is asked for and there is none.
    """
    if requested == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if requested == "cuda":
        raise ConfigError("no usable CUDA GPU", "--device cuda", "use --device auto or cpu, or `docker run --gpus all`")
    if torch.version.cuda is not None:
        logger.warning("no usable CUDA GPU: running on the CPU")
    return torch.device("cpu")


def choose_precision(requested: str, device: torch.device, manifest: Manifest) -> str:
    """The precision for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Auto takes bf16 on GPUs of compute capability 8.0 and later and fp16 on those from 7.0; on a CPU bf16
    where matrix units make it the faster one and the ensemble's measured deviation from fp32 is within
    tolerance; fp32 otherwise.
    """
    if requested != "auto":
        return requested
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    deviation = manifest.max_deviation.get("bf16")
    exact_enough = deviation is not None and deviation <= TOLERANCE
    return "bf16" if exact_enough and cpu_has_bf16_matrix_units() else "fp32"


def cpu_has_bf16_matrix_units() -> bool:
    """Whether this CPU has AMX's bf16 tiles; on other CPUs bf16 is no faster than fp32."""
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
