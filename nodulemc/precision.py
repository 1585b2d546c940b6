"""Which device and which number format an ensemble runs in. PyTorch is imported only where there is a GPU."""

import ctypes
import importlib.util
import logging
from pathlib import Path

from nodulemc.cpu import bf16_instructions
from nodulemc.errors import ConfigError
from nodulemc.manifest import TOLERANCE, Manifest

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


def choose_precision(requested: str, device: str, manifest: Manifest) -> str:
    """The precision for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Auto takes fp32 where the ensemble's measured deviation of bf16 from fp32 is unknown or beyond tolerance. Else it
    takes bf16 on GPUs of compute capability 8.0 and later and on CPUs whose instructions make it the faster one,
    fp16, which rounds eight times finer, on GPUs from 7.0, and fp32 elsewhere.
    """
    if requested != "auto":
        return requested
    deviation = manifest.max_deviation.get("bf16")
    if deviation is None or deviation > TOLERANCE:
        return "fp32"
    if device == "cuda":
        import torch

        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if bf16_instructions() else "fp32"


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
    return found is not None and (Path(found.origin).parent / "lib" / "libtorch_cuda.so").is_file()
