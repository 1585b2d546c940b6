"""The network's part: patches of several scans through one ensemble, and what its masks measure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.cohort.read_scan import Failed, Job, Read, Unchanged
from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import NoduleMask, nodule_mask
from nodulemc.measure.sizes import measure
from nodulemc.prediction import NodulePrediction, assemble_predictions

# Nodules that go to the network together, where a GPU makes that worthwhile.
GPU_BATCH = 32
# Nodules whose masks are made together: whole batches, with which probabilities are those without masks, but no more,
# as all members' masks of many nodules take gigabytes.
_MASKS_AT_ONCE = {"cpu": 4, "cuda": GPU_BATCH}


class Scorer(Protocol):
    """What an ensemble is used for here (see ``nodulemc.ensemble.ensemble.Ensemble``)."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda"."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def caveat(self) -> str | None:
        """A warning that belongs beside every number, None where there is none."""

    def findings(self, patches: Array) -> tuple[Array, Array]:
        """(N, 64, 64, 64) to (N, number of members) and (N, number of attributes)."""

    def vote(self, by_member: Array) -> Array:
        """(N, number of members) to (N,)."""

    def findings_and_masks(self, patches: Array) -> tuple[Array, Array, Array]:
        """The same and (N, 64, 64, 64), where nodules are measured."""


@dataclass(frozen=True)
class Scored:
    """A scan's predictions, and what it was read as (without its patches, for which nobody has a use any more).

    ``masks`` are the nodules', each on its part's grid; empty where nothing is measured.
    """

    read: Read
    predictions: tuple[NodulePrediction, ...]
    masks: tuple[NoduleMask, ...] = ()


Outcome = tuple[Job, Scored | Unchanged | Failed]


def score_together(reads: Sequence[Read], scorer: Scorer) -> list[Scored]:
    """Score several scans as one batch, and measure those with parts; the results do not depend on what else is in it.

    Args:
        reads: the scans.
        scorer: the ensemble.
    """
    patches = reads[0].patches if len(reads) == 1 else np.concatenate([read.patches for read in reads])
    measures = any(read.parts for read in reads)
    (by_member, attributes), masks = _with_masks(reads, patches, scorer) if measures else (scorer.findings(patches), ())
    scored = _split(reads, (by_member, scorer.vote(by_member), attributes), scorer.caveat)
    left = iter(masks)
    return [_measured(one, tuple(islice(left, len(one.read.parts)))) for one in scored]


def _with_masks(reads: Sequence[Read], patches: Array, scorer: Scorer) -> tuple[tuple[Array, Array], list[NoduleMask]]:
    """The scorer's findings, and each nodule's mask on its part's grid."""
    size = _MASKS_AT_ONCE[scorer.device]
    places = iter([place for read in reads for place in zip(read.parts, read.nodules, strict=True)])
    findings, masks = [], []
    for k in range(0, len(patches), size):
        *found, probabilities = scorer.findings_and_masks(patches[k : k + size])
        findings.append(found)
        for probability, (part, nodule) in zip(probabilities, islice(places, len(probabilities)), strict=True):
            masks.append(nodule_mask(_volume(part), nodule.point, probability))
    by_member, attributes = map(np.concatenate, zip(*findings, strict=True))
    return (by_member, attributes), masks


def _measured(scored: Scored, masks: tuple[NoduleMask, ...]) -> Scored:
    """With what its masks measure, where there are any."""
    if not masks:
        return scored
    predictions = tuple(
        replace(p, warnings=(*p.warnings, *mask.warnings), measurements=measure(_volume(part), mask))
        for p, part, mask in zip(scored.predictions, scored.read.parts, masks, strict=True)
    )
    return replace(scored, predictions=predictions, masks=masks)


def _volume(part: sitk.Image) -> Volume:
    return Volume(part, Path("the scan"))


def _split(reads: Sequence[Read], results: Sequence[Array], caveat: str | None) -> list[Scored]:
    """A batch's results, scan by scan: members' probabilities (N, members), votes (N,) and attributes (N, A)."""
    ends = np.cumsum([len(read.nodules) for read in reads])[:-1]
    parts = zip(*(np.split(values, ends) for values in results), strict=True)
    return [
        Scored(
            read,
            tuple(assemble_predictions(read.nodules, read.warnings, by_member, votes, attributes, caveat)),
        )
        for read, (by_member, votes, attributes) in zip(reads, parts, strict=True)
    ]
