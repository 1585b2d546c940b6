"""The network's part: patches of several scans through one ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nodulemc.cohort.reading import Failed, Job, Read, Unchanged
from nodulemc.prediction import NodulePrediction, with_warnings

# Nodules that go to the network together, where a GPU makes that worthwhile.
GPU_BATCH = 32


class Scorer(Protocol):
    """What an ensemble is used for here (see ``nodulemc.ensemble.Ensemble``)."""

    device: str
    precision: str
    caveat: str | None

    def findings(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 64, 64, 64) to (N, number of seeds) and (N, number of attributes)."""

    def vote(self, per_seed: np.ndarray) -> np.ndarray:
        """(N, number of seeds) to (N,)."""


@dataclass(frozen=True)
class Scored:
    """A scan's predictions, and what it was read as (without its patches, for which nobody has a use any more)."""

    read: Read
    predictions: tuple[NodulePrediction, ...]


Outcome = tuple[Job, Scored | Unchanged | Failed]


def score_together(reads: Sequence[Read], scorer: Scorer) -> list[Scored]:
    """Score several scans as one batch; the results do not depend on what else is in it."""
    patches = reads[0].patches if len(reads) == 1 else np.concatenate([read.patches for read in reads])
    per_seed, attributes = scorer.findings(patches)
    return split(reads, (per_seed, scorer.vote(per_seed), attributes), scorer.caveat)


def split(reads: Sequence[Read], results: Sequence[np.ndarray], caveat: str | None) -> list[Scored]:
    """A batch's results, scan by scan: seeds' probabilities (N, seeds), votes (N,) and attributes (N, A)."""
    ends = np.cumsum([len(read.nodules) for read in reads])[:-1]
    parts = zip(*(np.split(values, ends) for values in results), strict=True)
    return [
        Scored(read, tuple(with_warnings(read.nodules, read.notes, *part, caveat)))
        for read, part in zip(reads, parts, strict=True)
    ]
