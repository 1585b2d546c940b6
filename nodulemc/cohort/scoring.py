"""The network's part: patches of several scans through one ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np

from nodulemc.cohort.reading import Failed, Job, Read, Unchanged
from nodulemc.prediction import NodulePrediction, with_warnings

# Nodules that go to the network together, where a GPU makes that worthwhile.
GPU_BATCH = 32
# Nodules whose masks are made together: whole batches, with which probabilities are those without masks, but no more,
# as all seeds' masks of many nodules take gigabytes.
_MASKS_AT_ONCE = {"cpu": 4, "cuda": GPU_BATCH}


class Scorer(Protocol):
    """What an ensemble is used for here (see ``nodulemc.ensemble.Ensemble``)."""

    device: str
    precision: str
    caveat: str | None

    def findings(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 64, 64, 64) to (N, number of seeds) and (N, number of attributes)."""

    def vote(self, per_seed: np.ndarray) -> np.ndarray:
        """(N, number of seeds) to (N,)."""

    def findings_and_masks(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same and (N, 64, 64, 64), where masks are wanted."""


@dataclass(frozen=True)
class Scored:
    """A scan's predictions, and what it was read as (without its patches, for which nobody has a use any more).

    ``masks`` are each voxel's probability to belong to the nodule (64, 64, 64), on the patches' grid, nodule by nodule;
    empty where none are wanted.
    """

    read: Read
    predictions: tuple[NodulePrediction, ...]
    masks: tuple[np.ndarray, ...] = ()


Outcome = tuple[Job, Scored | Unchanged | Failed]


def score_together(reads: Sequence[Read], scorer: Scorer, *, masks: bool = False) -> list[Scored]:
    """Score several scans as one batch; the results do not depend on what else is in it.

    Args:
        reads: the scans.
        scorer: the ensemble.
        masks: whether the masks are wanted, too, for the scans' pages.
    """
    patches = reads[0].patches if len(reads) == 1 else np.concatenate([read.patches for read in reads])
    (per_seed, attributes), found = _with_masks(patches, scorer) if masks else (scorer.findings(patches), ())
    scored = split(reads, (per_seed, scorer.vote(per_seed), attributes), scorer.caveat)
    left = iter(found)
    return [replace(one, masks=tuple(islice(left, len(one.read.nodules)))) for one in scored]


def _with_masks(patches: np.ndarray, scorer: Scorer) -> tuple[tuple[np.ndarray, np.ndarray], list[np.ndarray]]:
    """The scorer's findings, and each nodule's mask."""
    size = _MASKS_AT_ONCE[scorer.device]
    findings, masks = [], []
    for k in range(0, max(len(patches), 1), size):
        *found, probabilities = scorer.findings_and_masks(patches[k : k + size])
        findings.append(found)
        masks += [*probabilities.astype(np.float32)]
    per_seed, attributes = map(np.concatenate, zip(*findings, strict=True))
    return (per_seed, attributes), masks


def split(reads: Sequence[Read], results: Sequence[np.ndarray], caveat: str | None) -> list[Scored]:
    """A batch's results, scan by scan: seeds' probabilities (N, seeds), votes (N,) and attributes (N, A)."""
    ends = np.cumsum([len(read.nodules) for read in reads])[:-1]
    parts = zip(*(np.split(values, ends) for values in results), strict=True)
    return [
        Scored(read, tuple(with_warnings(read.nodules, read.notes, *part, caveat)))
        for read, part in zip(reads, parts, strict=True)
    ]
