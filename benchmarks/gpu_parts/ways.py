"""Fast: each of ``nodulemc.ensemble.backends.ways`` in a fresh process, and the resulting row for its table."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from measure import peak_memory_mb, reset_peak_memory

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting, probes, timed
from nodulemc.ensemble.backends.ways import EAGER, Way

_WAYS = {
    "eager": EAGER,
    "cuDNN's search": Way(cudnn_benchmark=True),
    "fused": Way(fused=True),
    "CUDA graphs": Way(graphs=True),
    "CUDA graphs, cuDNN's search": Way(graphs=True, cudnn_benchmark=True),
    "CUDA graphs, fused": Way(graphs=True, fused=True),
}
_BATCHES, _SMALL_BATCHES = (1, 8, 32), (1, 2)
# The batch that decides the table's row, the least gain for a row, and the number of nodules of a usual case.
_JUDGED, _GAIN, _CASE = 8, 0.05, 10

Timed = tuple[float, float, float | None]  # seconds to start, seconds per nodule, peak MB


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the cost of each way with all members, and yield the row."""
    costs: dict[str, dict[int, Timed]] = {}
    for name, way in _WAYS.items():
        yield from attempt(name, _way(setting, name, way, costs))
    yield from attempt("the row for the table", recommended(setting, costs))


def _way(setting: Setting, name: str, way: Way, costs: dict[str, dict[int, Timed]]) -> Iterator[Row]:
    if way != EAGER:
        setting.require_gpu()
    costs[name] = setting.alone(time_way, setting, way)
    for batch, (start, each, memory) in costs[name].items():
        peak = "" if memory is None else f", peak {memory:.0f} MB"
        yield Row(f"{setting.half}, {name}, batch {batch}", 1 / each, "nodules/s", f"start {start:.2f} s{peak}")


def time_way(setting: Setting, way: Way) -> dict[int, Timed]:
    """Return the cost of one of the package's ways with all members, by batch size."""
    networks = setting.networks()
    # The part that every way waits for has its own shape, as cuDNN's choice for a shape is final.
    setting.seeds(networks, setting.half).member_probabilities(probes(3))
    results = {}
    for batch in _SMALL_BATCHES if setting.small else _BATCHES:
        reset_peak_memory(setting.device)
        seeds = setting.seeds(networks, setting.half, way=way)
        run = partial(seeds.member_probabilities, probes(batch))
        start, each = timed(run, setting)
        setting.require(seeds)
        results[batch] = start, each / batch, peak_memory_mb(setting.device)
    return results


def recommended(setting: Setting, costs: dict[str, dict[int, Timed]]) -> Iterator[Row]:
    """Yield the row for the table: the fastest way with enough gain, from the nodule on that pays for its start."""
    batch = _SMALL_BATCHES[-1] if setting.small else _JUDGED
    found = {name: _table_row(setting, name, costs, batch) for name in costs if name != "eager"}
    worth = {name: row for name, row in found.items() if row is not None}
    best = min(worth, key=lambda name: costs[name][batch][1], default=None)
    beside = "no way is worth its start" if best is None else worth[best]
    yield Row("for the table of nodulemc/ensemble/backends/ways.py", "no change" if best is None else "add", "", beside)


def _table_row(setting: Setting, name: str, costs: dict[str, dict[int, Timed]], batch: int) -> str | None:
    start, each, _ = costs[name][batch]
    gain = costs["eager"][batch][1] - each
    if gain < _GAIN * costs["eager"][batch][1]:
        return None
    pays = math.ceil(start / gain)
    way = _WAYS[name]
    # cuDNN makes its choice at a shape's first nodule, so its search is on from the beginning or not at all.
    if way.cudnn_benchmark and pays > _CASE:
        return None
    capability = torch.cuda.get_device_capability() if setting.device == "cuda" else (0, 0)
    chosen = ", ".join(f"{field}=True" for field, value in way._asdict().items() if value)
    return f'("{setting.device}", {capability}, {0 if way.cudnn_benchmark else pays}, Way({chosen})),'
