"""Robust: the device really runs out of memory, and two processes share one device."""

import gc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from types import MethodType

import numpy as np
import torch
from measure import seconds

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting, probes
from nodulemc.ensemble.backends.torch_backend import TorchMembers

# An allocator's need of memory, as a multiple of the previous need of the same work.
_MARGIN = 1.1
_FIT, _SMALL_FIT = 8, 1
_START_S = 120


def rows(setting: Setting) -> Iterator[Row]:
    """Measure halving, leaving the device, not getting there, and sharing it."""
    yield from attempt("memory for few nodules", _halving(setting))
    yield from attempt("memory for no nodule", _leaving(setting))
    yield from attempt("memory for no member", _not_getting_there(setting))
    yield from attempt("two processes", _two_processes(setting))


def _patches(setting: Setting) -> np.ndarray:
    return probes(2 if setting.small else 32)


def _halving(setting: Setting) -> Iterator[Row]:
    networks, patches = setting.networks(), _patches(setting)
    expected = setting.seeds(networks, setting.half).member_probabilities(patches)
    seeds = setting.seeds(networks, setting.half)
    few = _SMALL_FIT if setting.small else _FIT
    with memory_for(few, seeds, setting):
        seeds.batch_size = len(patches)
        found = seeds.member_probabilities(patches)
    right = _right(setting, found, expected) and seeds.device == setting.device and seeds.batch_size < len(patches)
    beside = f"batches of {len(patches)} became {seeds.batch_size}, on the {seeds.device}; difference from ample memory"
    yield Row(f"memory for {few} nodules", float(np.abs(found - expected).max()), "", beside, right)


def _leaving(setting: Setting) -> Iterator[Row]:
    networks, patches = setting.networks(), _patches(setting)[:4]
    expected = TorchMembers(setting.networks(), "cpu", "fp32").member_probabilities(patches)
    seeds = setting.seeds(networks, setting.half)
    with memory_for(0, seeds, setting):
        found = seeds.member_probabilities(patches)
    yield _on_cpu(setting, "memory for no nodule", seeds, found, expected)


def _not_getting_there(setting: Setting) -> Iterator[Row]:
    patches = _patches(setting)[:4]
    expected = TorchMembers(setting.networks(), "cpu", "fp32").member_probabilities(patches)
    if setting.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        with _memory_limit(torch.cuda.memory_reserved()):
            seeds = TorchMembers(setting.networks(), "cuda", setting.half)
            found = seeds.member_probabilities(patches)
    else:
        seeds = _Refused(setting.networks(), "cpu", "fp32")
        found = seeds.member_probabilities(patches)
    yield _on_cpu(setting, "memory for no member", seeds, found, expected)


def _on_cpu(setting: Setting, name: str, seeds: TorchMembers, found: np.ndarray, expected: np.ndarray) -> Row:
    right = _right(setting, found, expected) and (seeds.device, seeds.precision) == ("cpu", "fp32")
    # The weights stay as they were on the GPU.
    beside = f"ended on the {seeds.device} in {seeds.precision}; difference from fp32 throughout"
    return Row(name, float(np.abs(found - expected).max()), "", beside, right)


def _right(setting: Setting, found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= setting.manifest.tolerance)


@contextmanager
def memory_for(nodules: int, seeds: TorchMembers, setting: Setting) -> Iterator[None]:
    """Leave the device as much memory as this number of nodules needs. A CPU only reports that more do not fit."""
    if setting.device != "cuda":
        _pretend(nodules, seeds)
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    needed = torch.cuda.memory_reserved()
    if nodules:
        torch.cuda.reset_peak_memory_stats()
        seeds.member_probabilities(probes(nodules))
        needed = _MARGIN * torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
    with _memory_limit(needed):
        yield


@contextmanager
def _memory_limit(allowed: float) -> Iterator[None]:
    """Let PyTorch hold at most this number of bytes of the GPU."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / torch.cuda.mem_get_info()[1]))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _pretend(nodules: int, seeds: TorchMembers) -> None:
    """Let members on a CPU find no memory for more nodules, until they have moved to the CPU."""
    run_batch, leave = seeds._run_batch, seeds._leave_gpu

    def run(_self: TorchMembers, patches: np.ndarray, *arguments: object) -> None:
        if len(patches) > nodules:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        run_batch(patches, *arguments)

    def leave_for_good(self: TorchMembers) -> None:
        self._run_batch = run_batch
        leave()

    seeds._run_batch = MethodType(run, seeds)
    seeds._leave_gpu = MethodType(leave_for_good, seeds)


class _Refused(TorchMembers):
    """Seeds whose first move finds no memory, as on a full GPU."""

    _moves = 0

    def _move(self, device: str, precision: str) -> None:
        self._moves += 1
        if self._moves == 1:
            self.device = device
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        super()._move(device, precision)


def _two_processes(setting: Setting) -> Iterator[Row]:
    seeds, patches = setting.seeds(setting.networks(), setting.half), _patches(setting)
    expected = seeds.member_probabilities(patches)
    alone = len(patches) / seconds(lambda: seeds.member_probabilities(patches), setting.repeats, setting.device)
    context = get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=_meet_at, initargs=(context.Barrier(2),)) as pool:
        results = [task.result() for task in [pool.submit(_share, setting) for _ in range(2)]]
    together = sum(rate for rate, _ in results)
    yield Row("one process", alone, "nodules/s", f"batches of {len(patches)}")
    yield Row("two processes at once, both together", together, "nodules/s", f"{together / alone:.2f} of one alone")
    difference = max(float(np.abs(found - expected).max()) for _, found in results)
    yield Row("two processes: difference from one alone", difference, "", "", difference <= setting.manifest.tolerance)


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _share(setting: Setting) -> tuple[float, np.ndarray]:
    """Return nodules per second and probabilities of one of two processes. The clock runs once both are ready."""
    seeds, patches = setting.seeds(setting.networks(), setting.half), _patches(setting)
    seeds.member_probabilities(patches)
    _barrier.wait(_START_S)
    rounds = 1 if setting.small else 20
    each = seconds(lambda: [seeds.member_probabilities(patches) for _ in range(rounds)], 1, setting.device) / rounds
    setting.require(seeds)
    return len(patches) / each, seeds.member_probabilities(patches)
