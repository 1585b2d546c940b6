"""Small cohorts, an ensemble that costs nothing, and an engine without processes."""

import csv
import os
import signal
import time
from pathlib import Path

import cases
import numpy as np
import SimpleITK as sitk
from conftest import centre_of, make_ct
from digital_shapes import ball
from report.samples import make_manifest

from nodulemc.cohort.identity import Identity
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.read_scan import Read, Unchanged, read_scan
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.cohort.scoring import Scorer, score_together
from nodulemc.cohort.state import read_state

ENSEMBLE = Identity("weights", "fp32", ("seed_1", "seed_2"), "nothing")
MEASURING = Identity("decoding", "fp32", ("seed_1", "seed_2", "seed_3"), "nothing", measures=True)
DIAMETER_MM = 11
COLUMNS = ("SeriesInstanceUID", "AnnotationID", "CoordX", "CoordY", "CoordZ", "label")


class MeanOfPatch(cases.MeanOfPatch):
    """Takes its time for each nodule, as a network does."""

    device = "cpu"
    precision = "fp32"

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds

    def member_probabilities(self, patches):
        time.sleep(self.seconds * len(patches))
        return super().member_probabilities(patches)


class Segmenting(MeanOfPatch):
    """Every nodule's mask is a ball around its point; seeds and decoders are those of ``manifest``."""

    manifest = make_manifest(attributes=())

    def findings(self, patches):
        return self.member_probabilities(patches)[:, [0, 1, 1]], np.empty((len(patches), 0))

    def findings_and_masks(self, patches):
        return *self.findings(patches), np.stack([ball(DIAMETER_MM)] * len(patches))


class SerialEngine:
    """Scores scans one by one in this process; ``seen`` says what it did, by scan."""

    def __init__(self, scorer: Scorer | None = None) -> None:
        self._scorer = scorer or MeanOfPatch()
        self.seen: dict[str, str] = {}

    def outcomes(self, jobs):
        for job in jobs:
            reading = read_scan(job)
            self.seen[job.scan.name] = (
                "scored" if isinstance(reading, Read) else "unchanged" if isinstance(reading, Unchanged) else "failed"
            )
            yield job, (score_together([reading], self._scorer)[0] if isinstance(reading, Read) else reading)


def run_serially(manifest: Path, output: Path, *, ensemble: Identity = ENSEMBLE, **options) -> dict[str, str]:
    """A run with ``SerialEngine``; returns what it did, by scan."""
    output.mkdir(exist_ok=True)
    engine = SerialEngine(Segmenting() if ensemble.weights == MEASURING.weights else None)
    run_cohort(Task(read_cohort_manifest(manifest), manifest, output, ensemble, **options), engine)
    return engine.seen


def results(output: Path) -> dict[str, list[tuple]]:
    """Each scored scan's predictions, everything but the time."""
    return {
        scan.scan: [(p.nodule, p.probability, p.member_probabilities, p.warnings) for p in record.predictions]
        for scan, record in read_state(output).done
    }


def uid(number: int) -> str:
    return f"1.2.{number}"


def scan_file(number: int) -> str:
    return f"ct/{uid(number)}.mha"


def make_cohort(folder: Path, scans: int, size: tuple[int, int, int] = (40, 36, 24)) -> Path:
    """A folder in LUNA25's layout: scan k has 1 + k % 2 nodules, named k_0 and k_1."""
    (folder / "ct").mkdir(parents=True)
    rows = []
    for k in range(scans):
        image = make_ct(size=size, seed=k)
        sitk.WriteImage(image, str(folder / scan_file(k)), useCompression=True)
        x, y, z = centre_of(image)
        rows += [(uid(k), f"{k}_{j}", x + j, y, z, (k + j) % 2) for j in range(1 + k % 2)]
    write_rows(folder / "table.csv", COLUMNS, rows)
    return folder


def write_rows(path: Path, columns, rows) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])  # its own line ends have it quote a lone \r
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def blocked_signals(_job):
    """Instead of ``read_scan``: what a process has been deaf to since it was started."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def read_or_die(job):
    """As ``read_scan``, but the first scan kills its process always, and the second one once."""
    if job.scan.name == scan_file(0):
        os.kill(os.getpid(), signal.SIGKILL)
    mark = job.scan.path.with_suffix(".died")
    if job.scan.name == scan_file(1) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read_scan(job)
