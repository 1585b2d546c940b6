"""Matching the nodules of an earlier scan with those of this one, or reasons for doubt."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import NoduleMask
from nodulemc.measure.registration import Alignment, Registration
from nodulemc.measure.sizes import Measurements
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.util.progress import QUIET_S, progress

MATCH_MM = 10.0  # chosen: the most between a nodule's expected place and the centre of the prior scan's nodule
CLEAR_MM = 5.0  # chosen: every other candidate must be farther away by so much
LEAST_SIMILARITY = 0.4  # chosen: docs/measurements.md has the values of same and other patients


class DoubtError(Exception):
    """The reason why a nodule's match or growth is not given."""


@dataclass(frozen=True)
class MeasuredScan:
    """A CT, its nodules, their masks and measurements, in one order."""

    volume: Volume
    nodules: Sequence[Nodule]
    masks: Sequence[NoduleMask]
    sizes: Sequence[Measurements]

    @cached_property
    def names(self) -> list[str]:
        """The nodules' names in messages."""
        return [shortened(nodule.name or k) for k, nodule in enumerate(self.nodules, start=1)]

    @cached_property
    def centres(self) -> Array:
        """World x, y, z in mm (LPS) of each mask's centre of mass (N, 3), of a nodule without mask its point."""
        found = [
            self._centre_of(mask) if mask.voxels.any() else nodule.point
            for nodule, mask in zip(self.nodules, self.masks, strict=True)
        ]
        return np.array(found, float).reshape(-1, 3)

    def _centre_of(self, mask: NoduleMask) -> tuple[float, ...]:
        index = np.argwhere(mask.voxels).mean(axis=0)[::-1] + mask.lower
        centre: tuple[float, ...] = self.volume.image.TransformContinuousIndexToPhysicalPoint(index.tolist())
        return centre


@dataclass(frozen=True)
class Match:
    """A nodule's counterpart in the prior scan.

    Attributes:
        index: Its position from 0.
        distance_mm: The distance from its centre to the place where the registration expects it.
        similarity: The correlation of the two scans in the lung around the nodule.
    """

    index: int
    distance_mm: float
    similarity: float


class Matching:
    """Two scans' nodules, after registering the scans around each."""

    def __init__(self, scan: MeasuredScan, prior: MeasuredScan) -> None:
        self._scan, self._prior = scan, prior
        self._alignments = _align(scan, prior)
        self._away = self._distances_mm()

    def _distances_mm(self) -> Array:
        """From each nodule's place in the prior scan to each nodule there (N, M); infinite where it has no place."""
        away = np.full((len(self._scan.nodules), len(self._prior.nodules)), np.inf)
        for row, centre, alignment in zip(away, self._scan.centres, self._alignments, strict=True):
            if alignment is not None and alignment.similarity >= LEAST_SIMILARITY:
                place = alignment.motion.TransformPoint(centre.tolist())
                row[:] = np.linalg.norm(self._prior.centres - place, axis=1)
        return away

    def match(self, k: int) -> Match:
        """Return the counterpart of the scan's nodule ``k``.

        Raises:
            DoubtError: the scans do not fit around it, none is near, two may be it, or it may be another's, too.
        """
        if not self._prior.nodules:
            raise DoubtError("the prior scan has no points")
        alignment = self._alignments[k]
        if alignment is None:
            raise DoubtError("there is no lung around it, in both scans, by which to register them")
        if alignment.similarity < LEAST_SIMILARITY:
            needed = f"correlation {alignment.similarity:.2f}, needed {LEAST_SIMILARITY:g}"
            raise DoubtError(f"the lung around it does not fit that of the prior scan ({needed})")
        j = int(self._away[k].argmin())
        distance = float(self._away[k, j])
        if distance > MATCH_MM:
            near = f"the nearest is {distance:.0f} mm off"
            raise DoubtError(f"no point of the prior scan is within {MATCH_MM:g} mm of its place there; {near}")
        self._check_rivals(k, j)
        return Match(j, distance, alignment.similarity)

    def matched(self) -> set[int]:
        """Return the positions of the prior scan's nodules that are a nodule's counterpart."""
        found = set()
        for k in range(len(self._scan.nodules)):
            with suppress(DoubtError):
                found.add(self.match(k).index)
        return found

    def _check_rivals(self, k: int, j: int) -> None:
        clear = self._away[k, j] + CLEAR_MM
        names, prior_names = self._scan.names, self._prior.names
        for m in np.flatnonzero(self._away[k] < clear):
            if m != j:
                raise DoubtError(f"it may be {prior_names[j]} or {prior_names[m]} of the prior scan")
        for n in np.flatnonzero(self._away[:, j] < clear):
            if n != k:
                raise DoubtError(f"{prior_names[j]} of the prior scan may be this nodule or {names[n]}")


def _align(scan: MeasuredScan, prior: MeasuredScan) -> list[Alignment | None]:
    """Align the surroundings of each of a scan's nodules with the prior scan; None if there is no lung."""
    if not (scan.nodules and prior.nodules):
        return [None] * len(scan.nodules)
    registration = Registration(scan.volume, prior.volume)
    found = (registration.around(*place) for place in zip(scan.centres, scan.masks, strict=True))
    return list(progress(found, len(scan.nodules), "registrations", quiet_s=QUIET_S))
