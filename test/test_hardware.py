import os

import pytest

from nodulemc import hardware as cpu


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("fpu sse2 avx512f avx512_bf16", "AVX-512 BF16"),
        ("fpu sse2 avx512f avx512_vnni", None),
    ],
)
def test_bf16_instructions_are_those_that_the_kernel_lists(tmp_path, monkeypatch, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n")
    monkeypatch.setattr(cpu, "_FLAGS", tmp_path / "cpuinfo")
    assert cpu.bf16_instructions() == expected


def test_without_a_list_of_flags_bf16_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_FLAGS", tmp_path / "missing")
    assert cpu.bf16_instructions() is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux's affinity mask")
@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), (None, 8)])
def test_cores_are_those_of_the_mask_or_of_the_quota(tmp_path, monkeypatch, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(cpu, "_QUOTA", tmp_path / "cpu.max")
    assert cpu.available_cores() == cores
