"""The device, processes and mixed precision of training, through Accelerate."""

import ctypes
import sys

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env

from nodulemc.errors import ConfigError
from nodulemc.hardware import bf16_instructions

# The numbers of these settings in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


def create_accelerator(precision: str) -> Accelerator:
    """Return the accelerator for the devices that ``accelerate launch`` gave this process, or for those it finds.

    Args:
        precision: "fp32", "bf16", "fp16" (with gradient scaling), or "auto". "auto" is bf16 if the device is fast at it
            (GPUs of compute capability 8.0 and later, CPUs with AMX or AVX-512 BF16), fp16 on other GPUs, and fp32 on
            other CPUs.

    Raises:
        ConfigError: fp16 is wanted on a CPU.
    """
    # Accelerate joins processes on CPUs only if it is told so here. With its launcher's variable alone, each process
    # would train by itself.
    device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device
    on_cuda = device.type == "cuda"
    if precision == "auto":
        bf16 = torch.cuda.is_bf16_supported(False) if on_cuda else bf16_instructions()
        precision = "bf16" if bf16 else "fp16" if on_cuda else "fp32"
    if precision == "fp16" and not on_cuda:
        raise ConfigError("run.precision is fp16", f"device {device}", "use bf16, fp32 or auto without a CUDA GPU")
    if on_cuda:
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
    else:
        keep_freed_memory()
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation instead of returning it to the system.

    A training step frees and allocates gigabytes of activations. Getting them from the system each time, page by page,
    cost a third of a step's time on two cores. Other C libraries lack this setting and are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_MAX, 0)
