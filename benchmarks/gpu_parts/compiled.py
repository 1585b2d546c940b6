"""Fast: ways to run the networks that the package does not use, beside the present way. Compiling comes last.

Each runs in a fresh process. Its rows have the cost of its start and the error of its numbers.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting, probes, timed
from nodulemc.ensemble.backends.torch_backend import DTYPES
from nodulemc.models.upscaled_stem import PatchNetwork

_BATCH = 8
# Batch size. For the present way and for a candidate: name, seconds to start, seconds per batch, largest difference.
Beside = tuple[int, list[tuple[str, float, float, float]]]


def rows(setting: Setting) -> Iterator[Row]:
    """Yield two rows for each candidate."""
    for name, measure in CANDIDATES.items():
        yield from attempt(name, _candidate(setting, name, measure))


def _candidate(setting: Setting, name: str, measure: Callable[[Setting], Beside]) -> Iterator[Row]:
    if name in _ON_GPU_ONLY:
        setting.require_gpu()
    batch, results = setting.alone(measure, setting)
    for what, start, each, difference in results:
        beside = f"start {start:.2f} s, largest difference {difference:.1e}"
        yield Row(f"batch {batch}, {what}", batch / each, "nodules/s", beside)


class _Member(nn.Module):
    """A member with its probability as the only output, as exporting requires."""

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        return torch.sigmoid(self.network.classify(patches).double())


def _members(setting: Setting) -> tuple[list[nn.Module], Tensor]:
    """Return the members on the device in the shorter precision, channels last, and a batch."""
    dtype, layout = DTYPES[setting.half], torch.channels_last_3d
    members = [_Member(network).to(setting.device, dtype, memory_format=layout) for network in setting.networks()]
    batch = torch.from_numpy(probes(2 if setting.small else _BATCH)).unsqueeze(1)
    return members, batch.to(setting.device, dtype)


def _beside_eager(
    setting: Setting, name: str, eager: Callable[[], Tensor], run: Callable[[], Tensor], start: float = 0
) -> Beside:
    expected = eager()
    before, usual = timed(eager, setting)
    first, each = timed(run, setting)
    difference = float(np.abs((run() - expected).cpu().numpy()).max())
    return len(expected), [("eager, beside the next", before, usual, 0.0), (name, start + first, each, difference)]


@torch.no_grad()
def contiguous(setting: Setting) -> Beside:
    """Weights that are not channels last."""
    members, batch = _members(setting)
    plain = _Member(setting.networks()[0]).to(setting.device, DTYPES[setting.half])
    return _beside_eager(setting, "one member, contiguous", lambda: members[0](batch), lambda: plain(batch))


@torch.no_grad()
def on_streams(setting: Setting) -> Beside:
    """All members at once, each on its own stream, instead of one after the other."""
    members, batch = _members(setting)
    streams = [torch.cuda.Stream() for _ in members]

    def in_turn() -> Tensor:
        return torch.stack([member(batch) for member in members], dim=1)

    def at_once() -> Tensor:
        current, outputs = torch.cuda.current_stream(), []
        for member, stream in zip(members, streams, strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                outputs.append(member(batch))
        for stream in streams:
            current.wait_stream(stream)
        return torch.stack(outputs, dim=1)

    return _beside_eager(setting, f"all {len(members)} members on streams", in_turn, at_once)


@torch.no_grad()
def compiled(setting: Setting, mode: str = "default") -> Beside:
    """torch.compile."""
    members, batch = _members(setting)
    options = {"mode": mode} if setting.compiler == "inductor" else {}
    run = torch.compile(members[0], backend=setting.compiler, **options)
    # In reduce-overhead mode, the next run overwrites the output.
    return _beside_eager(
        setting, f"one member, torch.compile ({mode})", lambda: members[0](batch), lambda: run(batch).clone()
    )


@torch.no_grad()
def ahead_of_time(setting: Setting) -> Beside:
    """torch.export and AOTInductor. Compiling is no part of the start. If nothing compiles, only torch.export runs."""
    members, batch = _members(setting)
    start = time.perf_counter()
    program = torch.export.export(members[0], (batch,))
    if setting.compiler == "eager":
        run, loading = program.module(), 0.0
        name = f"one member, torch.export (done in {time.perf_counter() - start:.0f} s)"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder) / "member.pt2"))
            name = f"one member, AOTInductor (compiled in {time.perf_counter() - start:.0f} s)"
            start = time.perf_counter()
            run = torch._inductor.aoti_load_package(path)
            loading = time.perf_counter() - start
    return _beside_eager(setting, name, lambda: members[0](batch), lambda: run(batch), loading)


CANDIDATES: dict[str, Callable[[Setting], Beside]] = {
    "one member, contiguous": contiguous,
    "members on streams": on_streams,
    "one member, torch.compile": compiled,
    "one member, ahead of time": ahead_of_time,
    "one member, torch.compile with CUDA graphs": partial(compiled, mode="reduce-overhead"),
}
_ON_GPU_ONLY = ("members on streams", "one member, torch.compile with CUDA graphs")
