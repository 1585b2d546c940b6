"""Scoring patches of several scans with one ensemble, and measuring its masks."""

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
    """The part of an ensemble that is used here (see ``nodulemc.ensemble.ensemble.Ensemble``)."""

    @property
    def device(self) -> str:
        """The device: "cpu" or "cuda"."""

    @property
    def precision(self) -> str:
        """The number format that it computes in."""

    @property
    def caveat(self) -> str | None:
        """A warning that belongs beside every number. None if there is none."""

    def findings(self, patches: Array) -> tuple[Array, Array]:
        """Map (N, 64, 64, 64) to (N, number of members) and (N, number of attributes)."""

    def vote(self, by_member: Array) -> Array:
        """Map (N, number of members) to (N,)."""

    def findings_and_masks(self, patches: Array) -> tuple[Array, Array, Array]:
        """Return the same and masks (N, 64, 64, 64), for nodules that are measured."""


@dataclass(frozen=True)
class Scored:
    """A scan's predictions, and the scan as it was read, without its patches, which are not needed any more.

    ``masks`` are the nodules' masks, each on its part's grid; empty if nothing is measured.
    """

    read: Read
    predictions: tuple[NodulePrediction, ...]
    masks: tuple[NoduleMask, ...] = ()


Outcome = tuple[Job, Scored | Unchanged | Failed]


def score_together(reads: Sequence[Read], scorer: Scorer) -> list[Scored]:
    """Score several scans as one batch, and measure those with parts. Results do not depend on the rest of the batch.

    Args:
        reads: The scans.
        scorer: The ensemble.
    """
    patches = reads[0].patches if len(reads) == 1 else np.concatenate([read.patches for read in reads])
    measures = any(read.parts for read in reads)
    (by_member, attributes), masks = _with_masks(reads, patches, scorer) if measures else (scorer.findings(patches), ())
    scored = _split(reads, (by_member, scorer.vote(by_member), attributes), scorer.caveat)
    left = iter(masks)
    return [_measured(one, tuple(islice(left, len(one.read.parts)))) for one in scored]


def _with_masks(reads: Sequence[Read], patches: Array, scorer: Scorer) -> tuple[tuple[Array, Array], list[NoduleMask]]:
    """Return the scorer's findings, and each nodule's mask on its part's grid."""
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
    """Add measurements, if there are masks."""
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
    """Yield a batch's results by scan: members' probabilities (N, members), votes (N,) and attributes (N, A)."""
    ends = np.cumsum([len(read.nodules) for read in reads])[:-1]
    parts = zip(*(np.split(values, ends) for values in results), strict=True)
    return [
        Scored(
            read,
            tuple(assemble_predictions(read.nodules, read.warnings, by_member, votes, attributes, caveat)),
        )
        for read, (by_member, votes, attributes) in zip(reads, parts, strict=True)
    ]
