"""The choice of device and number format for an ensemble. PyTorch is imported only if there is a GPU."""

import ctypes
import importlib.util
import logging
import math
from pathlib import Path

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.errors import ConfigError
from nodulemc.hardware import bf16_instructions

logger = logging.getLogger(__name__)


def choose_device(requested: str) -> str:
    """ "cpu" or "cuda" for ``auto``, ``cpu`` or ``cuda``; auto warns if a CUDA build of PyTorch finds no GPU.

    Raises:
        ConfigError: ``cuda`` is requested, but there is no GPU.
    """
    if requested == "cpu":
        return "cpu"
    if cuda_is_usable():
        return "cuda"
    if requested == "cuda":
        raise ConfigError("no usable CUDA GPU", "--device cuda", "use --device auto or cpu, or `docker run --gpus all`")
    if torch_is_built_for_cuda():
        logger.warning("no usable CUDA GPU: running on the CPU")
    return "cpu"


def choose_precision(requested: str, device: str, manifest: EnsembleManifest) -> str:
    """Return the precision for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Auto takes the first precision that is fast on the device and deviates from fp32 by no more than the ensemble's
    tolerance, or else fp32. bf16 is fast on GPUs of compute capability 8.0 and later and on CPUs with instructions for
    it. fp16 rounds eight times finer but holds smaller numbers only; it is fast on GPUs from 7.0.
    """
    if requested != "auto":
        return requested
    within = (p for p in _fast(device) if manifest.max_deviation.get(p, math.inf) <= manifest.tolerance)
    return next(within, "fp32")


def _fast(device: str) -> tuple[str, ...]:
    """Return the precisions shorter than fp32 that are fast on a device."""
    if device == "cpu":
        return ("bf16",) if bf16_instructions() else ()
    import torch

    capability = torch.cuda.get_device_capability(device)
    return ("bf16", "fp16") if capability >= (8, 0) else ("fp16",) if capability >= (7, 0) else ()


def cuda_is_usable() -> bool:
    """Return whether PyTorch can use a GPU. PyTorch, which is slow to import, is only asked with an NVIDIA driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        devices = ctypes.c_int(0)
        # Both return 0 for success (CUDA Driver API, CUresult).
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(devices)) or not devices.value:
            return False
    except (OSError, AttributeError):
        return False
    import torch

    return torch.cuda.is_available()


def torch_is_built_for_cuda() -> bool:
    """Return whether the installed PyTorch could use a GPU."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "lib" / "libtorch_cuda.so").is_file()
