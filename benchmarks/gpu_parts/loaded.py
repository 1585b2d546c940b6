"""Fast: nodules per second of a loaded ensemble, by precision and batch size, beside the floor of the same run."""

from collections.abc import Iterator

from measure import matrix_rate, network_flops, pass_flops, peak_memory_mb, reset_peak_memory, seconds
from torch.profiler import ProfilerActivity, profile

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting, probes
from nodulemc.models.upscaled_stem import PatchNetwork

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# The goal: this share of the measured bf16 rate, on a GPU of the H100's class, from this batch on.
_GOAL, _GOAL_BATCH = 0.35, 8
_KERNELS, _NAME = 8, 100


def rows(setting: Setting) -> Iterator[Row]:
    """Measure for each precision its matrix-product rate, then the ensemble's."""
    networks = setting.networks()
    done = sum(map(pass_flops, networks))
    published = sum(network_flops(member.architecture.backbone) for member in setting.manifest.members)
    flops = done if setting.small else published
    yield Row(
        "a nodule's work, all members", flops / 1e9, "GFLOP", f"{published / 1e9:.4g} published, {done / 1e9:.4g} done"
    )
    for precision in ("bf16", "fp16", "fp32"):
        yield from attempt(f"{precision}: loaded ensemble", _by_batch(setting, networks, precision, flops))
    yield from attempt("where the time goes", slowest_kernels(setting, networks))


def _by_batch(setting: Setting, networks: list[PatchNetwork], precision: str, flops: float) -> Iterator[Row]:
    rate = matrix_rate(precision, setting.device, side=256 if setting.small else None)
    yield Row(f"{precision}: matrix product", rate / 1e12, "TFLOP/s")
    for batch in (2,) if setting.small else _BATCHES:
        each = _seconds_per_nodule(setting, networks, precision, batch)
        share = flops / rate / each
        judged = setting.device == "cuda" and precision == "bf16" and batch >= _GOAL_BATCH
        goal = f" (goal {100 * _GOAL:.0f})" if judged else ""
        memory = peak_memory_mb(setting.device)
        peak = "" if memory is None else f", peak {memory:.0f} MB"
        beside = f"{100 * share:.1f} % of the matrix rate{goal}{peak}"
        yield Row(f"{precision}, batch {batch}", 1 / each, "nodules/s", beside, share >= _GOAL if judged else None)


def _seconds_per_nodule(setting: Setting, networks: list[PatchNetwork], precision: str, batch: int) -> float:
    reset_peak_memory(setting.device)
    seeds = setting.seeds(networks, precision)
    seeds.batch_size = batch
    patches = probes(batch if setting.small else max(batch, _GOAL_BATCH))
    seeds.member_probabilities(patches)
    each = seconds(lambda: seeds.member_probabilities(patches), setting.repeats, setting.device) / len(patches)
    setting.require(seeds)
    return each


def slowest_kernels(setting: Setting, networks: list[PatchNetwork]) -> Iterator[Row]:
    """Yield the kernels that take the most of the device's time."""
    seeds, patches = setting.seeds(networks, setting.half), probes(2 if setting.small else _GOAL_BATCH)
    seeds.member_probabilities(patches)
    on_gpu = setting.device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiled:
        seeds.member_probabilities(patches)
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiled.key_averages()
    }
    for name in sorted(spent, key=spent.get, reverse=True)[:_KERNELS]:
        share = 100 * spent[name] / sum(spent.values())
        yield Row(f"{setting.half}, batch {len(patches)}: of its time", share, "%", name[:_NAME])
