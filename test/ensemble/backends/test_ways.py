from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nodulemc.ensemble.backends import torch_backend, ways
from nodulemc.ensemble.backends.torch_backend import TorchMembers, load_members
from nodulemc.ensemble.backends.ways import EAGER, CudaGraphs, Way, choose_way

GRAPHS = Way(graphs=True)


def test_the_last_row_that_fits_holds(monkeypatch):
    tuned = Way(cudnn_benchmark=True)
    rows = [("cuda", (0, 0), 0, EAGER), ("cuda", (8, 0), 0, tuned), ("cuda", (8, 0), 100, GRAPHS)]
    monkeypatch.setattr(ways, "TABLE", (("cpu", (0, 0), 0, EAGER), *rows))
    chosen = [choose_way("cuda", capability, nodules) for capability in ((7, 5), (9, 0)) for nodules in (99, 100)]
    assert chosen == [EAGER, EAGER, tuned, GRAPHS]
    assert choose_way("cpu", (0, 0), 100) == EAGER


@pytest.mark.parametrize(("device", "capability"), [("cpu", (0, 0)), ("cuda", (7, 5)), ("cuda", (9, 0))])
def test_every_device_has_a_way_from_the_first_nodule_on(device, capability):
    assert isinstance(choose_way(device, capability, 1), Way)
    assert not choose_way(device, capability, 1).tf32


class FakeGraph:
    """Replays by doing the work again in the recorded tensors, as a GPU does."""

    def __init__(self) -> None:
        self.recorded = []

    def replay(self) -> None:
        for run, inputs, outputs in self.recorded:
            outputs.copy_(run(inputs))


@pytest.fixture
def fake_gpu(monkeypatch):
    """CUDA's streams and graphs on the CPU. The log has the streams' order; ``fault`` is raised while recording."""
    log = SimpleNamespace(entered=[], recording=None, fault=None, current=SimpleNamespace(wait_stream=lambda s: None))

    @contextmanager
    def recording(graph, stream):
        log.entered.append("record")
        log.recording = graph
        try:
            yield
            if log.fault:
                raise log.fault
        finally:
            log.recording = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda s: log.entered.append("wait")))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: log.current)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    return log


def recordable(log, function, calls):
    """The function; what it does while a graph is recorded goes into the graph."""

    def run(inputs):
        outputs = function(inputs)
        calls.append("record" if log.recording else "run")
        if log.recording:
            log.recording.recorded.append((function, inputs, outputs))
        return outputs

    return run


def test_a_graph_is_recorded_once_per_shape_and_replayed_on_new_numbers(fake_gpu):
    calls = []
    graphs, double = CudaGraphs(), recordable(fake_gpu, lambda x: x * 2, calls)
    for numbers in ([1.0, 2.0], [3.0, 4.0], [5.0]):
        assert graphs.run("double", double, torch.tensor(numbers)).tolist() == [2 * x for x in numbers]
    # For each of the two shapes a pass to warm up and one to record.
    assert calls == ["run", "record"] * 2
    graphs.clear()
    graphs.run("double", double, torch.tensor([1.0]))
    assert len(calls) == 6


def test_a_pass_that_cannot_be_recorded_runs_as_ever(fake_gpu):
    calls = []
    fake_gpu.fault = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    graphs, double = CudaGraphs(), recordable(fake_gpu, lambda x: x * 2, calls)
    for numbers in ([1.0], [2.0]):
        assert graphs.run("double", double, torch.tensor(numbers)).tolist() == [2 * x for x in numbers]
    assert fake_gpu.entered.count("record") == 1


class Sum(torch.nn.Module):
    """A network whose logit is the patch's mean, whatever the device is called."""

    def __init__(self, log, calls) -> None:
        super().__init__()
        self.classify = recordable(log, lambda x: x.mean(dim=(1, 2, 3, 4)), calls)

    def to(self, *arguments, **options):
        return self


class OnFakeGpu(TorchMembers):
    """Seeds that take the CPU for a GPU; the copy to it is none."""

    def _run_batch(self, patches, task, results):
        batch = torch.from_numpy(patches).unsqueeze(1)
        run = recordable(self.log, lambda x: torch.sigmoid(x.mean(dim=(1, 2, 3, 4)))[:, None], self.calls)
        results[:] = self._graphs.run(task, run, batch).numpy()


def test_graphs_take_batches_of_powers_of_two(fake_gpu):
    seeds = OnFakeGpu([Sum(fake_gpu, [])], "cuda", "fp32", way=GRAPHS)
    seeds.log, seeds.calls = fake_gpu, []
    patches = np.arange(23, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 4), np.float32)
    seeds.batch_size = 8
    expected = 1 / (1 + np.exp(-np.arange(23.0)))
    for _ in range(2):
        np.testing.assert_allclose(seeds.member_probabilities(patches)[:, 0], expected, rtol=1e-6)
    # 23 = 8 + 8 + 4 + 2 + 1: four shapes, recorded once.
    assert fake_gpu.entered.count("record") == 4


class Sending(TorchMembers):
    """Seeds that take the CPU for a GPU and tell in which order they send batches and run on them."""

    def _sent(self, patches):
        self.log.append(("send", patches[:, 0, 0, 0].tolist()))
        return torch.from_numpy(patches).unsqueeze(1)

    def _run_networks(self, batch, task):
        self.log.append(("run", batch[:, 0, 0, 0, 0].tolist()))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.sigmoid(batch.mean(dim=(1, 2, 3, 4)).double())[:, None]


def test_the_next_batch_is_sent_before_the_one_before_is_read_back(fake_gpu):
    seeds = Sending([Sum(fake_gpu, [])], "cuda", "fp32", way=EAGER)
    seeds.log, seeds.room, seeds.batch_size = [], 2, 2
    patches = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 4), np.float32)
    expected = 1 / (1 + np.exp(-np.arange(5.0)))
    for _ in range(2):
        seeds.log.clear()
        np.testing.assert_allclose(seeds.member_probabilities(patches)[:, 0], expected, rtol=1e-6)
        sent = [("send", [0, 1]), ("run", [0, 1]), ("send", [2, 3]), ("run", [2, 3]), ("send", [4]), ("run", [4])]
        assert seeds.log == sent


def test_what_was_sent_ahead_is_of_no_use_after_a_retreat(fake_gpu):
    seeds = Sending([Sum(fake_gpu, [])], "cuda", "fp32", way=EAGER)
    seeds.log, seeds.room, seeds.batch_size = [], 4, 4
    patches = np.arange(11, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 4), np.float32)
    run = seeds._run_networks

    def shrink(batch, task):
        # From the second batch on there is room for two.
        outputs = run(batch, task)
        seeds.room = 2
        return outputs

    seeds._run_networks = shrink
    expected = 1 / (1 + np.exp(-np.arange(11.0)))
    np.testing.assert_allclose(seeds.member_probabilities(patches)[:, 0], expected, rtol=1e-6)
    assert seeds.batch_size == 2


class Darkness(Sum):
    """With a decoder, a mask of what is dark; it tells one attribute, the mean's half."""

    def __init__(self, log, *, segments) -> None:
        super().__init__(log, [])
        self.segments = segments

    def classify_with_attributes(self, x):
        mean = x.mean(dim=(1, 2, 3, 4))
        return mean, {"texture": mean / 2}

    def find_all(self, x):
        return *self.classify_with_attributes(x), -x[:, 0]


class RunsNetworks(OnFakeGpu):
    """The same, with its own networks."""

    def _run_batch(self, patches, task, results):
        run = recordable(self.log, lambda x: self._run_networks(x, task), self.calls)
        results[:] = self._graphs.run(task, run, torch.from_numpy(patches).unsqueeze(1)).numpy()


def test_findings_and_masks_are_one_graph(fake_gpu):
    networks = [Darkness(fake_gpu, segments=segments) for segments in (True, False, True)]
    seeds = RunsNetworks(networks, "cuda", "fp32", way=GRAPHS)
    seeds.log, seeds.calls, seeds.batch_size = fake_gpu, [], 2
    patches = np.random.default_rng(0).normal(size=(5, 4, 4, 4)).astype(np.float32)
    for _ in range(2):
        findings, masks = seeds.member_findings_and_masks(patches, ("margin", "texture"))
    assert fake_gpu.entered.count("record") == 2  # of two nodules and of one
    mean = patches.mean(axis=(1, 2, 3), dtype=np.float64)
    for k in range(3):
        np.testing.assert_allclose(findings[:, k, 0], 1 / (1 + np.exp(-mean)), rtol=1e-6)
        np.testing.assert_allclose(findings[:, k, 2], 1 / (1 + np.exp(-mean / 2)), rtol=1e-6)
    assert np.isnan(findings[:, :, 1]).all()
    np.testing.assert_allclose(masks, np.stack([1 / (1 + np.exp(patches))] * 2, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(seeds.member_findings(patches, ("margin", "texture")), findings)
    assert fake_gpu.entered.count("record") == 4  # alone they are others
    assert seeds._nodules == 15


def test_the_way_reaches_cudnn_and_fp32_is_not_tf32(fake_gpu, monkeypatch):
    seen = []

    class Watching(torch.nn.Module):
        def to(self, *arguments, **options):
            return self

        def classify(self, x):
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32))
            return x.mean(dim=(1, 2, 3, 4))

    before = torch.backends.cudnn.allow_tf32
    for way in (EAGER, Way(cudnn_benchmark=True, tf32=True)):
        seeds = TorchMembers([Watching()], "cuda", "fp32", way=way)
        monkeypatch.setattr(seeds, "device", "cpu")  # the copy to the device
        monkeypatch.setattr(seeds, "_chosen_way", lambda way=way: way)
        seeds.member_probabilities(np.zeros((1, 4, 4, 4), np.float32))
    assert seen == [(True, False, False), (True, True, True)]
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_nodules_since_loading_choose_the_way(fake_gpu, monkeypatch):
    asked = []
    monkeypatch.setattr(torch_backend, "choose_way", lambda *facts: asked.append(facts) or EAGER)
    seeds = TorchMembers([Sum(fake_gpu, [])], "cuda", "fp32")
    monkeypatch.setattr(TorchMembers, "_run_batch", lambda self, patches, task, results: self._chosen_way())
    for count in (3, 4):
        seeds.member_probabilities(np.zeros((count, 4, 4, 4), np.float32))
    assert set(asked) == {("cuda", (9, 0), 3), ("cuda", (9, 0), 7)}
    seeds.device = "cpu"
    assert seeds._chosen_way() == EAGER


class Seed(str):
    """A member of that file, with a decoder where its name is long."""

    @property
    def segments(self):
        return len(self) > 1


@pytest.mark.parametrize(("device", "started"), [("cpu", []), ("cuda", [torch.float16])])
def test_the_gpu_starts_while_the_seeds_are_read(device, started, monkeypatch):
    found = []

    def start(dtype):
        found.append(dtype)
        raise RuntimeError("whatever goes wrong is found where the seeds move")

    monkeypatch.setattr(torch_backend, "start_gpu", start)
    monkeypatch.setattr(torch_backend, "read_weights", lambda folder, member, masks: f"{folder}/{member} {masks}")
    monkeypatch.setattr(torch_backend, "_build", lambda member, tensors, masks: (member, tensors, masks))
    monkeypatch.setattr(torch_backend, "TorchMembers", lambda *arguments: arguments)
    networks, *where = load_members("folder", [Seed("a"), Seed("bb")], device, "fp16", masks=True)
    assert networks == [("a", "folder/a False", False), ("bb", "folder/bb True", True)]
    assert where == [device, "fp16"]
    assert found == started
