"""The shared parts of the benchmarks: floors measured in the same run, and the file of last results."""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nodulemc.ensemble.backends.torch_backend import DTYPES
from nodulemc.hardware import available_cores, bf16_instructions
from nodulemc.models.architecture import Architecture
from nodulemc.models.multitask import create_model
from nodulemc.patch import SIZE

RESULTS = Path(__file__).parent / "results.json"
_SIDE = {"cpu": 3072, "cuda": 8192}


def precisions(device: str) -> list[str]:
    """Return the precisions worth measuring: on a CPU without bf16 instructions OpenVINO always computes in fp32."""
    return ["fp32", "bf16"] if device == "cuda" or bf16_instructions() else ["fp32"]


def seconds(work: Callable[[], Any], repeats: int = 5, device: str = "cpu") -> float:
    """Return the median wall time of some work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(precision: str, device: str = "cpu", side: int | None = None) -> float:
    """Return the FLOP/s of a large matrix product.

    The best of several counts, as other work on the machine can only slow it down.
    """
    side = side or _SIDE[device]
    a, b = (torch.rand(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, 1, device) for _ in range(8))


def network_flops(backbone: str = "inception_i3d") -> float:
    """Return the FLOPs of a member for a nodule: the convolutions of the published network on its upscaled input."""
    with torch.device("meta"):
        network = create_model(Architecture(backbone), with_decoder=False).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 1, 64, 128, 128))
    return counter.get_total_flops()


def pass_flops(network: nn.Module) -> float:
    """Return the FLOPs of one pass of an inference network for one nodule, as it is run."""
    on_paper = deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        on_paper.classify(torch.empty(1, 1, SIZE, SIZE, SIZE, device="meta"))
    return counter.get_total_flops()


def reset_peak_memory(device: str) -> None:
    """Reset a GPU's peak of memory. Do nothing on a CPU."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb(device: str) -> float | None:
    """Return the peak of a GPU's memory in tensors since ``reset_peak_memory``. None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


def swapped_gaps(expected: np.ndarray, found: np.ndarray) -> list[float]:
    """Return the expected differences of the pairs that the found values rank the other way round."""
    pairs = np.array(list(combinations(range(len(expected)), 2)))
    before, after = (values[pairs[:, 0]] - values[pairs[:, 1]] for values in (expected, found))
    return np.abs(before[before * after < 0]).tolist()


def run_cold(arguments: list[str]) -> tuple[float, float]:
    """Return the wall seconds and peak memory in MB of a fresh Python process.

    Raises:
        RuntimeError: the process failed. The message has its last line on stderr.
    """
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=errors)
        peak = 0
        # The peak from wait4 includes this process's own memory, from the time before the new program started.
        while process.poll() is None:
            peak = max(peak, _peak_kb(process.pid))
            time.sleep(0.005)
        elapsed = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines()[-1:]
            raise RuntimeError(f"{Path(arguments[0]).name} ended with {process.returncode}: {' '.join(said)}")
    return elapsed, peak / 1024


def _peak_kb(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def record(name: str, content: dict[str, Any]) -> None:
    """Keep a benchmark's figures in results.json. They replace its last ones on this kind of machine."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(name, {})[machine()] = {"torch": torch.__version__} | content
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    print(f"kept in {RESULTS}")


def machine() -> str:
    """Return the machine in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
        cpu += f" with {bf16_instructions()}" if bf16_instructions() else ""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{available_cores()} cores of {cpu}{gpu}"
