"""Which device and which number format an ensemble runs in. PyTorch is imported only where there is a GPU."""

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
    """ "cpu" or "cuda" for ``auto``, ``cpu`` or ``cuda``; auto warns where a CUDA build of PyTorch finds no GPU.

    Raises:
        ConfigError: ``cuda`` is asked for and there is none.
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
    """The precision for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Auto takes the first precision at which the device is fast and whose measured deviation from fp32 is within the
    ensemble's tolerance; fp32 where there is none. bf16 is fast on GPUs of compute capability 8.0 and later and on CPUs
    with instructions for it; fp16, which rounds eight times finer but holds smaller numbers only, on GPUs from 7.0.
    """
    if requested != "auto":
        return requested
    within = (p for p in _fast(device) if manifest.max_deviation.get(p, math.inf) <= manifest.tolerance)
    return next(within, "fp32")


def _fast(device: str) -> tuple[str, ...]:
    """The precisions shorter than fp32 at which a device is fast."""
    if device == "cpu":
        return ("bf16",) if bf16_instructions() else ()
    import torch

    capability = torch.cuda.get_device_capability(device)
    return ("bf16", "fp16") if capability >= (8, 0) else ("fp16",) if capability >= (7, 0) else ()


def cuda_is_usable() -> bool:
    """Whether PyTorch can use a GPU; without an NVIDIA driver PyTorch, slow to import, is not asked."""
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
    """Whether the installed PyTorch could use a GPU."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "lib" / "libtorch_cuda.so").is_file()
