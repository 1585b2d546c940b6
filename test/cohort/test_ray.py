"""A real Ray cluster of several nodes on this machine, each with processes of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cohort.made import make_cohort, read_rows, results, scan_file
from ensembles import make_untrained_ensemble

from nodulemc import cli
from nodulemc.cohort.listing import read_listing
from nodulemc.cohort.reading import Job
from nodulemc.cohort.store import Store
from nodulemc.cohort.view import view
from nodulemc.prediction import extract_patches
from nodulemc.volume import read_volume

pytest.importorskip("ray")
SCANS = 10
MISSING = 4


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    for _ in range(2):
        # Ray believes what it is told of GPUs.
        cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 << 20)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    make_untrained_ensemble(folder)
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
    store = Store(path)
    try:
        return 0 if store.is_empty else len(store.records())
    finally:
        store.close()


def test_a_lost_node_and_a_killed_worker_change_nothing(cluster, luna, ensemble, tmp_path):
    """While it runs, one node's processes are killed, and a reader or actor of the other."""
    alone, output = tmp_path / "alone", tmp_path / "out"
    assert cli.main(command(luna, alone, ensemble)) == 3
    doomed = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    program = [sys.executable, "-m", "nodulemc.cli"]
    options = ("--engine", "ray", "--address", cluster.address)
    with subprocess.Popen([*program, *command(luna, output, ensemble, *options)], stdout=subprocess.PIPE) as run:
        deadline = time.monotonic() + 120
        while records_in(output) < 2:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed = kill_a_model(cluster.address)
        cluster.remove_node(doomed, allow_graceful=False)
        assert records_in(output) < SCANS
        run.communicate(timeout=240)
    assert killed
    assert run.returncode == 3
    assert [record.scan for record in view(output).failed] == [scan_file(MISSING)]
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


def kill_a_model(address: str) -> int:
    """Kill the process of one of the cluster's actors, which Ray has given its title; returns its number."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if not (folder / "cmdline").read_bytes().startswith(b"ray::_Model"):
                continue
            parent = (folder / "stat").read_text().rpartition(") ")[2].split()[1]
            if address.encode() not in (Path("/proc") / parent / "cmdline").read_bytes():
                continue
        except OSError:  # it has just ended
            continue
        os.kill(int(folder.name), signal.SIGKILL)
        return int(folder.name)
    return 0


def test_nothing_listens(tmp_path, luna, ensemble, capsys):
    options = ("--engine", "ray", "--address", "127.0.0.1:1")
    assert cli.main(command(luna, tmp_path / "out", ensemble, *options)) == 2
    assert "error: no Ray cluster (" in capsys.readouterr().err


def test_one_actor_for_each_gpu_takes_batches(cluster, luna):
    """The second seed's probability tells the batch's size, the third one's the process."""

    class Gpu:
        device, caveat = "cuda", None

        def __init__(self, device, precision):
            assert device == "cuda"
            self.precision = "bf16" if precision == "auto" else precision

        def findings(self, patches):
            time.sleep(0.5)
            size, process = np.full(len(patches), len(patches)), np.full(len(patches), os.getpid())
            seeds = np.stack([patches.mean(axis=(1, 2, 3)), size, process], axis=1)
            return seeds, 1 + 4 * seeds[:, :1]

        def vote(self, per_seed):
            return per_seed[:, 0]

    from nodulemc.cohort.ray_engine import RayEngine

    scans = [scan for scan in read_listing(luna) if scan.name != scan_file(MISSING)]
    engine = RayEngine(Gpu, address=cluster.address)
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
    assert all(p.attributes == (1 + 4 * p.per_seed[0],) for p in predictions)
    assert 2 < max(p.per_seed[1] for p in predictions) <= 33
    assert len({p.per_seed[2] for p in predictions}) == 2
