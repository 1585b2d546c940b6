"""The parts of the CPU that this process may use."""

import os
from math import ceil
from pathlib import Path

PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # the names in options and recipes
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux's cgroup v2
_FLAGS = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return the number of usable cores: those of the affinity mask, or fewer by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, ceil(int(quota) / int(period))))


def bf16_instructions() -> str | None:
    """Return this CPU's instructions for bf16, "AMX" or "AVX-512 BF16"; None if bf16 is no faster than fp32."""
    try:
        flags = _FLAGS.read_text()
    except OSError:  # not Linux
        return None
    return "AMX" if " amx_bf16" in flags else "AVX-512 BF16" if " avx512_bf16" in flags else None
