import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch
from ensembles import make_untrained_ensemble

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
try:
    import gpu
    import measure
    from gpu_parts import compiled, loaded, robust, setting, ways
    from gpu_parts.nodules import collect, read_patches
    from gpu_parts.row import Row, attempt
finally:
    # test/training would be taken for benchmarks/training.py.
    sys.path.remove(str(BENCHMARKS))

pytestmark = pytest.mark.heavy

NEEDS_GPU = {
    "ways": {"cuDNN's search", "fused", "CUDA graphs", "CUDA graphs, cuDNN's search", "CUDA graphs, fused"},
    "kernels": {f"convolution {kernel}, bias, ReLU" for kernel in ("7×1×1", "3×3×3 of 64", "3×3×3 of 96")},
    "compiled": {"members on streams", "one member, torch.compile with CUDA graphs"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("two_members")
    make_untrained_ensemble(path, (1, 2))
    return path


@pytest.fixture
def small(folder):
    return setting.Setting("cpu", True, folder, None, Path("none"))


@pytest.fixture(scope="module")
def nodules(tmp_path_factory):
    """A file of few nodules' patches."""
    file = tmp_path_factory.mktemp("nodules") / "nodules.npz"
    patches, words = collect(file.parent, 1, 1)
    np.savez_compressed(file, patches=patches.astype(np.float16), words=words)
    return file


def command(folder, nodules, part):
    """The benchmark's command line for a part on few and shrunk patches."""
    options = ("--device", "cpu", "--small", "--resources", folder, "--patches", nodules, "--parts", part)
    return [BENCHMARKS / "gpu.py", *options]


def rows_of(part, folder, nodules, file):
    """A part's rows, from a process of its own."""
    process = forked.start(*command(folder, nodules, part), "--into", file)
    assert forked.code_of(process, 10 * gpu.LIMITS[part]) == 0, part
    return [Row(**json.loads(line)) for line in file.read_text().splitlines()]


def test_every_part_runs_on_a_cpu(tmp_path, nodules):
    make_untrained_ensemble(tmp_path / "one_member")
    table = {part: rows_of(part, tmp_path / "one_member", nodules, tmp_path / part) for part in gpu.LIMITS}
    assert not [row for rows in table.values() for row in rows if row.met is False]
    for part, rows in table.items():
        assert {row.name for row in rows if row.value is None} == NEEDS_GPU.get(part, set())
    named = "\n".join(row.text() for rows in table.values() for row in rows)
    for expected in (
        "1 probes, 1 phantom",
        "bf16: a member's largest difference",
        "fp16: pairs that change places",
        "auto chooses",
        "bf16, batch 2",
        "cold case, 1 nodules",
        "patches cut on the cpu, PyTorch",
        "batches of 2 became 1",
        "memory for no member",
        "two processes at once",
        "torch.compile (default)",
        "torch.export",
        "a resumed run's difference from a whole one",
        "compiled by eager: training",
    ):
        assert expected in named


def test_the_command_prints_a_parts_rows_as_they_come(folder, nodules):
    done = subprocess.run([sys.executable, *command(folder, nodules, "data")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:]]
    assert {part for part, _ in rows} == {"data"}
    assert rows[0][1].startswith("2 patches, to the device, pageable")
    assert rows[-1][1].startswith("the part's time")


def test_the_limits_leave_time_for_what_lies_between_the_parts():
    assert sum(gpu.LIMITS.values()) <= 7 * 60 - 20


def test_the_page_on_speed_states_every_parts_time():
    page = (BENCHMARKS.parent / "docs" / "speed.md").read_text()
    assert f"together {sum(gpu.LIMITS.values())} s" in " ".join(page.split())
    stated = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE))
    assert {part: int(seconds) for part, seconds in stated.items()} == gpu.LIMITS


def run_part(tmp_path, program, limit=60.0):
    """Rows of a part that is a small program; ``row(name)`` writes one."""
    start = f"import json, sys, os, time; path = sys.argv[-1]\ndef row(name): open(path, 'a').write({WRITE})\n"
    return list(gpu.run_part("part", [sys.executable, "-c", start + program], limit, tmp_path))


WRITE = 'json.dumps(dict(name=name, value=1.5)) + "\\n"'


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("row('a'); raise ValueError('it broke')", "exit code 1: ValueError: it broke"),
        ("row('a'); os.kill(os.getpid(), 11)", "exit code -11: it said nothing"),
        ("row('a'); os._exit(3)", "exit code 3: it said nothing"),
    ],
)
def test_a_part_that_fails_keeps_its_rows_and_says_why(tmp_path, program, reason):
    first, took, last = run_part(tmp_path, program)
    assert first == Row("a", 1.5)
    assert took.name == "the part's time"
    assert last == Row(gpu.ENDED, None, "", reason, False)


def test_a_part_that_hangs_is_stopped_with_all_it_started(tmp_path):
    program = (
        "import subprocess; row('a')\n"
        "child = subprocess.Popen(['sleep', '60']); open(path + '.pid', 'w').write(str(child.pid))\n"
        "open(path, 'a').write('{\"name\": \"half a'); time.sleep(60)"
    )
    rows = run_part(tmp_path, program, limit=2)
    assert [row.name for row in rows] == ["a", "the part's time", gpu.ENDED]
    assert rows[-1].beside == "stopped after its 2 s"
    child = Path("/proc") / (tmp_path / "part.jsonl.pid").read_text()
    deadline = time.monotonic() + 5
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists() or (child / "stat").read_text().split()[2] == "Z"


def arguments(**changes):
    return SimpleNamespace(**({"device": "cpu", "small": False, "parts": ["a", "b"]} | changes))


def test_one_part_that_fails_does_not_stop_the_next_and_all_is_kept(tmp_path, monkeypatch, capsys, folder):
    found = {"a": [Row("x", 1.0, "s", "goal", True), Row(gpu.ENDED, None, "", "crash", False)], "b": [Row("y", "word")]}
    monkeypatch.setattr(gpu, "run_part", lambda part, *_: iter(found[part]))
    monkeypatch.setattr(gpu, "LIMITS", {"a": 1, "b": 1})
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    args = arguments(resources=folder, cubes=Path("none"), patches=None)
    assert gpu.run_parts(args) == 1
    shown = capsys.readouterr().out
    assert "2 of 2 members" in shown
    assert "b        y" in shown
    (entry,) = json.loads((tmp_path / "results.json").read_text())["gpu_cpu"].values()
    assert entry["parts"]["a"][0] == {"name": "x", "value": 1.0, "unit": "s", "beside": "goal", "met": True}
    assert entry["parts"]["b"][0]["value"] == "word"
    assert entry["torch"] == torch.__version__


def test_a_small_run_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    gpu.keep(arguments(small=True), "words", {"a": [Row("x", 1.0)]})
    assert not (tmp_path / "results.json").exists()


def test_a_gpu_is_asked_for_before_anything_is_measured():
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--parts", "data"]
    done = subprocess.run(command, capture_output=True, text=True)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no usable CUDA GPU: --device cuda: ")


def test_what_breaks_off_leaves_what_was_there():
    def rows():
        yield Row("first", 1.0)
        raise RuntimeError("no compiler\nand much more")

    assert list(attempt("second", rows())) == [
        Row("first", 1.0),
        Row("second", None, "", "not available: no compiler"),
    ]


def test_members_that_were_left_behind_are_done_without(folder, tmp_path):
    sparse, made = tmp_path / "sparse", tmp_path / "made"
    sparse.mkdir()
    made.mkdir()
    for name in ("ensemble.json", "seed_2.safetensors"):
        shutil.copyfile(folder / name, sparse / name)
    found, words = setting.find_ensemble(sparse, made)
    assert words.startswith("1 of 2 members of sparse, weights trained on: ")
    assert len(setting.Setting("cpu", True, found, None, sparse).networks()) == 1
    whole, words = setting.find_ensemble(folder, made)
    assert whole == folder
    assert words.startswith("2 of 2 members")


@pytest.mark.parametrize("content", [[], ["ensemble.json"]])
def test_without_weights_untrained_ones_are_made(folder, tmp_path, monkeypatch, content):
    monkeypatch.setattr(setting, "probe_patches", lambda: np.random.default_rng(0).random((1, 16, 16, 16), np.float32))
    for name in content:
        shutil.copyfile(folder / name, tmp_path / name)
    made = tmp_path / "made"
    made.mkdir()
    found, words = setting.find_ensemble(tmp_path, made)
    assert "untrained" in words
    (network,) = setting.Setting("cpu", True, found, None, made).networks(masks=True)
    with torch.no_grad():
        logits, masks = network(torch.rand(2, 1, 64, 64, 64))
    assert (logits.shape, masks.shape) == ((2,), (2, 64, 64, 64))
    assert logits[0] != logits[1]


def test_patches_survive_their_file(tmp_path, shared_data):
    patches, words = collect(shared_data / "lidc" / "cubes", 1, 1)
    assert words == "1 probes, 1 phantom, 1 LIDC-IDRI"
    np.savez_compressed(tmp_path / "file.npz", patches=patches.astype(np.float16), words=words)
    read, same = read_patches(tmp_path / "file.npz")
    assert same == words
    assert read.dtype == np.float32
    # Half a Hounsfield unit of 1400.
    np.testing.assert_allclose(read, patches, atol=0.5 / 1400)


def costs(**each):
    """A way's start and seconds per nodule at the batch that is judged."""
    names = {"eager": "eager", "graphs": "CUDA graphs", "search": "cuDNN's search"}
    return {names[name]: {8: (start, seconds, None)} for name, (start, seconds) in each.items()}


@pytest.mark.parametrize(
    ("found", "row"),
    [
        # Half a second of start is paid back by a 64th a nodule.
        (costs(eager=(0, 2**-5), graphs=(0.5, 2**-6)), '("cuda", (9, 0), 32, Way(graphs=True)),'),
        (
            costs(eager=(0, 0.03), graphs=(0.5, 0.02), search=(0.1, 0.01)),
            '("cuda", (9, 0), 0, Way(cudnn_benchmark=True)),',
        ),
        # The search has to be there from the first nodule on, and a case is too short for it.
        (costs(eager=(0, 0.03), search=(0.5, 0.01)), "no way is worth its start"),
        (costs(eager=(0, 0.03), graphs=(0.0, 0.029)), "no way is worth its start"),
    ],
)
def test_the_tables_row_pays_its_start_back(found, row, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    (printed,) = ways.recommended(setting.Setting("cuda", False, Path("none"), None, Path("none")), found)
    assert printed.beside == row
    assert printed.value == ("no change" if row.startswith("no") else "add")


def test_seeds_that_left_the_gpu_give_no_figure_of_a_gpu():
    on_gpu = setting.Setting("cuda", False, Path("none"), None, Path("none"))
    with pytest.raises(RuntimeError, match="left the cuda for the cpu"):
        on_gpu.require(SimpleNamespace(device="cpu"))


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch's view of a GPU of 1000 bytes."""
    state = SimpleNamespace(fractions=[], reserved=100, peak=400)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", state.fractions.append)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (900, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: state.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: state.peak)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    return state


@pytest.mark.parametrize(("nodules", "asked", "allowed"), [(8, [8], 0.44), (0, [], 0.1)])
def test_memory_is_limited_to_what_the_nodules_need_and_given_back(cuda, nodules, asked, allowed):
    done = []
    seeds = SimpleNamespace(member_probabilities=lambda patches: done.append(len(patches)))
    on_gpu = setting.Setting("cuda", False, Path("none"), None, Path("none"))
    with pytest.raises(KeyError), robust.memory_for(nodules, seeds, on_gpu):
        raise KeyError
    assert done == asked
    assert cuda.fractions == [pytest.approx(allowed), 1.0]


def test_members_on_streams_give_what_they_give_in_turn(small, monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda s: waits.append("member")))
    current = SimpleNamespace(wait_stream=lambda s: waits.append("current"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    batch, ((_, _, _, _), (name, _, _, difference)) = compiled.on_streams(small)
    assert (batch, name, difference) == (2, "all 2 members on streams", 0.0)
    assert waits[:4] == ["member", "member", "current", "current"]


def test_the_work_of_a_small_network_is_a_64th(small):
    (network, _), whole = small.networks(), setting.Setting("cpu", False, small.resources, None, Path("none"))
    assert measure.pass_flops(whole.networks()[0]) == pytest.approx(64 * measure.pass_flops(network), rel=0.01)


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # one cycle is all there is
def test_the_kernels_are_those_with_the_most_time(small):
    rows = list(loaded.slowest_kernels(small, small.networks()))
    shares = [row.value for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert any("conv" in row.beside for row in rows)


def test_what_runs_in_a_process_of_its_own_gets_there():
    for work in (*compiled.CANDIDATES.values(), ways.time_way):
        assert pickle.loads(pickle.dumps(work)) is not None  # noqa: S301
    where = setting.Setting("cuda", False, Path("none"), None, Path("none"))
    assert pickle.loads(pickle.dumps(where)) == where  # noqa: S301


class Compiling(setting.Setting):
    """A small setting with the true compiler."""

    compiler = "inductor"


@pytest.mark.slow
@pytest.mark.parametrize("candidate", [compiled.compiled, compiled.ahead_of_time])
def test_what_is_compiled_gives_the_same(folder, candidate):
    batch, (_, (_, _, _, difference)) = candidate(Compiling("cpu", True, folder, None, Path("none")))
    assert batch == 2
    assert difference < 1e-5
