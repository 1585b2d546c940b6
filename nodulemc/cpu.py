"""What this process may use of the CPU."""

import os
from math import ceil
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux's cgroup v2


def available_cores() -> int:
    """How many cores may be used: those of the affinity mask, fewer where a container's quota says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, ceil(int(quota) / int(period))))


def has_bf16_matrix_units() -> bool:
    """Whether this CPU has AMX's bf16 tiles; on other CPUs bf16 is no faster than fp32."""
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
