"""Scoring on one machine: processes that read, and the ensemble in this process."""

from collections.abc import Callable, Iterator, Sequence

from nodulemc.cohort.read_scan import Job, Read, read_scan
from nodulemc.cohort.reader_processes import Readers
from nodulemc.cohort.scoring import GPU_BATCH, Outcome, Scorer, score_together


class LocalEngine:
    """Scores scans on this machine."""

    def __init__(self, load: Callable[[], Scorer], workers: int) -> None:
        """Prepare; nothing is started yet.

        Args:
            load: Returns the ensemble. It is called once, while the first scans are being read.
            workers: The number of reading processes.
        """
        self._load = load
        self._workers = workers

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job, as soon as it is there."""
        if not jobs:
            return
        with Readers(read_scan, jobs, min(self._workers, len(jobs))) as readers:
            scorer = self._load()
            # A CPU gains nothing from a batch, and a short one loses less when the run is killed.
            for batch in readers.batches(GPU_BATCH if scorer.device == "cuda" else 1):
                reads = [(job, reading) for job, reading in batch if isinstance(reading, Read)]
                yield from ((job, reading) for job, reading in batch if not isinstance(reading, Read))
                if reads:
                    scored = score_together([read for _, read in reads], scorer)
                    yield from zip((job for job, _ in reads), scored, strict=True)
