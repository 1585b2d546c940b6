"""A real Ray cluster of several nodes on this machine, each with processes of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cohort.made import DIAMETER_MM, MEASURING, SerialEngine, make_cohort, read_rows, results, scan_file
from digital_shapes import ball
from ensembles import make_untrained_ensemble
from report.samples import make_manifest

from nodulemc import cli
from nodulemc.cohort.export import export
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.pages import Pages
from nodulemc.cohort.read_scan import Job
from nodulemc.cohort.results_db import ResultsDb
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.cohort.state import read_state
from nodulemc.ct.volume import read_volume
from nodulemc.prediction import extract_patches
from nodulemc.report import page
from nodulemc.report.page import Origin

pytestmark = pytest.mark.heavy

pytest.importorskip("ray")
SCANS = 10
MISSING = 4
# For what is waited for: a busy machine takes its time.
PATIENCE_S = 300


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        # Ray believes what it is told of GPUs.
        add_node(cluster, num_gpus=1)
    yield cluster
    cluster.shutdown()


def add_node(cluster, **options):
    """A node with one CPU; Ray itself would wait for 30 s only."""
    node = cluster.add_node(wait=False, num_cpus=1, object_store_memory=80 << 20, **options)
    cluster.wait_for_nodes(PATIENCE_S)
    return node


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    make_untrained_ensemble(folder, upscales=False)
    return folder


@pytest.fixture(scope="module")
def luna(tmp_path_factory) -> Path:
    folder = make_cohort(tmp_path_factory.mktemp("data") / "luna", SCANS)
    (folder / scan_file(MISSING)).unlink()
    return folder


def command(luna: Path, output: Path, ensemble: Path, *options: str) -> list[str]:
    names = ("--output", output, "--resources", ensemble, "--device", "cpu", "--precision", "fp32")
    return ["cohort", *map(str, (luna, *names)), *options]


def records_in(output: Path) -> int:
    path = output / "cohort.sqlite"
    if not path.exists():
        return 0
    store = ResultsDb(path)
    try:
        return 0 if store.is_empty else len(store.records())
    finally:
        store.close()


def test_a_lost_node_and_a_killed_worker_change_nothing(cluster, luna, ensemble, tmp_path):
    """While it runs, one node's processes are killed, and an actor of another."""
    alone, output = tmp_path / "alone", tmp_path / "out"
    assert cli.main(command(luna, alone, ensemble)) == 3
    doomed = add_node(cluster)
    program = [sys.executable, "-m", "nodulemc.cli"]
    options = ("--engine", "ray", "--address", cluster.address)
    with subprocess.Popen([*program, *command(luna, output, ensemble, *options)], stdout=subprocess.PIPE) as run:
        deadline = time.monotonic() + PATIENCE_S
        while records_in(output) < 2:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Nothing is scored until both faults are done, however long that takes.
        models = models_of(cluster.address, besides=doomed)
        assert models
        for model in models:
            os.kill(model, signal.SIGSTOP)
        cluster.remove_node(doomed, allow_graceful=False)
        os.kill(models[0], signal.SIGKILL)
        assert records_in(output) < SCANS
        for model in models[1:]:
            os.kill(model, signal.SIGCONT)
        run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 3
    assert [record.scan for record in read_state(output).failed] == [scan_file(MISSING)]
    expected, found = results(alone), results(output)
    assert list(found) == list(expected)
    for name, predictions in expected.items():
        for ours, theirs in zip(found[name], predictions, strict=True):
            assert ours[0] == theirs[0]
            assert ours[1] == pytest.approx(theirs[1], abs=1e-6)
            assert ours[2] == pytest.approx(theirs[2], abs=1e-6)
            assert ours[3] == theirs[3]
    names = [row["AnnotationID"] for row in read_rows(output / "predictions.csv")]
    assert len(names) == len(set(names)) == SCANS + SCANS // 2 - 1


def models_of(address: str, besides) -> list[int]:
    """Processes of the cluster's actors, which Ray has given their title, on all nodes but one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parent = (folder / "stat").read_text().rpartition(") ")[2].split()[1]
            node = (Path("/proc") / parent / "cmdline").read_bytes().decode()
            is_model = (folder / "cmdline").read_bytes().startswith(b"ray::_Model")
            if is_model and address in node and besides.raylet_socket_name not in node:
                found.append(int(folder.name))
    return found


def test_nothing_listens(tmp_path, luna, ensemble, capsys):
    options = ("--engine", "ray", "--address", "127.0.0.1:1")
    assert cli.main(command(luna, tmp_path / "out", ensemble, *options)) == 2
    assert "error: no Ray cluster (" in capsys.readouterr().err


def test_one_actor_for_each_gpu_takes_batches(cluster, luna, tmp_path, monkeypatch):
    """The second seed's probability tells the batch's size, the third one's the process."""
    from nodulemc.cohort import ray_engine

    scans = [scan for scan in read_cohort_manifest(luna) if scan.name != scan_file(MISSING)]
    all_read, numbers, was_read = tmp_path / "all_read", count(1), ray_engine._Flow._was_read

    def counted(self, done):
        if next(numbers) == len(scans):
            all_read.touch()
        return was_read(self, done)

    monkeypatch.setattr(ray_engine._Flow, "_was_read", counted)

    class Gpu:
        device, caveat = "cuda", None

        def __init__(self, device, precision):
            assert device == "cuda"
            self.precision = "bf16" if precision == "auto" else precision

        def findings(self, patches):
            # A GPU is behind its readers: both have two scans each by now, and the others wait together.
            deadline = time.monotonic() + PATIENCE_S
            while not all_read.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            size, process = np.full(len(patches), len(patches)), np.full(len(patches), os.getpid())
            seeds = np.stack([patches.mean(axis=(1, 2, 3)), size, process], axis=1)
            return seeds, 1 + 4 * seeds[:, :1]

        def vote(self, by_member):
            return by_member[:, 0]

    engine = ray_engine.RayEngine(Gpu, address=cluster.address)
    try:
        outcomes = list(engine.outcomes([Job(scan) for scan in scans]))
    finally:
        engine.close()
    assert engine.precision == "bf16"
    assert sorted(job.scan.name for job, _ in outcomes) == sorted(scan.name for scan in scans)
    predictions = [p for _, scored in outcomes for p in scored.predictions]
    for job, scored in outcomes:
        patches = extract_patches(read_volume(job.scan.path), job.scan.points)
        means = patches.mean(axis=(1, 2, 3))
        assert [p.probability for p in scored.predictions] == pytest.approx(means.tolist(), abs=1e-6)
    assert all(p.attributes == (1 + 4 * p.member_probabilities[0],) for p in predictions)
    assert 2 < max(p.member_probabilities[1] for p in predictions) <= 33
    assert len({p.member_probabilities[2] for p in predictions}) == 2


def test_measurements_and_pages_are_those_of_one_machine(cluster, luna, tmp_path, monkeypatch):
    from nodulemc.cohort.ray_engine import RayEngine

    shape = ball(DIAMETER_MM)
    monkeypatch.setattr(page, "datetime", SimpleNamespace(now=lambda _: datetime(2026, 1, 1, tzinfo=timezone.utc)))

    class Segmenting:
        caveat = "made"

        def __init__(self, device, precision):
            self.device, self.precision = device, precision

        def findings(self, patches):
            return np.repeat(patches.mean(axis=(1, 2, 3))[:, None], 3, axis=1), np.empty((len(patches), 0))

        def vote(self, by_member):
            return by_member[:, 0]

        def findings_and_masks(self, patches):
            return *self.findings(patches), np.stack([shape] * len(patches))

    def run(output, engine):
        output.mkdir()
        scans = read_cohort_manifest(luna)
        origin = Origin(make_manifest(attributes=()), "cpu", "fp32", False)
        pages = Pages(output / "pages", [scan.name for scan in scans], origin)
        run_cohort(Task(scans, luna, output, MEASURING, pages=pages), engine)
        export(output, output)
        return {path.name: path.read_bytes() for path in (output / "pages" / "scans").iterdir()}

    engine = RayEngine(Segmenting, device="cpu", precision="fp32", address=cluster.address)
    try:
        by_ray = run(tmp_path / "ray", engine)
    finally:
        engine.close()
    assert len(by_ray) == SCANS - 1
    assert by_ray == run(tmp_path / "here", SerialEngine(Segmenting("cpu", "fp32")))
    rows = read_rows(tmp_path / "ray" / "predictions.csv")
    assert rows == read_rows(tmp_path / "here" / "predictions.csv")
    assert all(row["volume_mm3"] for row in rows)
