"""From readers' outlines to nodules: groups of outlines, consensus masks, and the readers' means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from nodulemc.data.lidc_xml import RATINGS, Marking, Outline
from nodulemc.errors import ImageError

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.geometry import Grid

REACH_MM = 8.0
# A share of the slices' distance. The outlines state the slices' positions, up to rounding.
_SLICE_TOLERANCE = 0.25
_APART_MM = 1e9  # the distance between markings that never join


@dataclass(frozen=True)
class ReadNodule:
    """A nodule that readers have marked.

    Attributes:
        readers: The number of readers.
        ratings: The mean ratings by name, rounded to two decimals, without those that nobody gave.
        diameter_mm: The largest distance of two points of an outline, as the mean of the readers.
        volume_mm3: The volume of the prisms of outlines and slice distance, as the mean of the readers.
        lower: The index x, y, z of the mask's first voxel in the CT.
        mask: bool, axes z, y, x: the voxels that at least half of the readers enclosed, without margins. May be empty.
    """

    readers: int
    ratings: dict[str, float]
    diameter_mm: float
    volume_mm3: float
    lower: tuple[int, int, int]
    mask: Array

    @property
    def label(self) -> int | None:
        """1 if the mean rating is malignant, 0 if it is benign, None if it is undecided."""
        mean = self.ratings.get("malignancy", 3)
        return None if mean == 3 else int(mean > 3)

    @property
    def centre(self) -> Array:
        """The mask's centre, continuous index x, y, z (3,). NaN if the mask is empty."""
        return np.array(self.lower) + (np.argwhere(self.mask)[:, ::-1].mean(axis=0) if self.mask.any() else np.nan)


def nodules_of(markings: Sequence[Marking], ct: Grid) -> list[ReadNodule]:
    """Return the nodules of a CT, ordered by the height of their markings' centres.

    Raises:
        ImageError: an outline does not lie on the CT.
    """
    centres = np.array([_centre_mm(marking, ct) for marking in markings]).reshape(-1, 3)
    groups = same_nodule(centres, [marking.reader for marking in markings])
    groups.sort(key=lambda group: centres[group].mean(axis=0)[::-1].tolist())
    return [_nodule([markings[k] for k in group], ct) for group in groups]


def same_nodule(centres: Array, readers: Sequence[int]) -> list[list[int]]:
    """Group the markings of the same nodule: all their centres lie within REACH_MM, and each is by another reader.

    The nearest markings are joined first (complete linkage).

    Args:
        centres: The markings' centres (N, 3) in mm.
        readers: The reader of each marking.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(centres) < 2:
        return [[k] for k in range(len(centres))]
    apart = [
        _APART_MM if readers[i] == readers[j] else float(np.linalg.norm(centres[i] - centres[j]))
        for i, j in combinations(range(len(centres)), 2)
    ]
    numbers = fcluster(linkage(apart, "complete"), REACH_MM, "distance")
    return [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]


def enclosed(points: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[Array, Array]:
    """Return the pixels within a closed line, and those on it.

    Args:
        points: The line's corners (column, row).
        size: The number of columns and rows of the slice.

    Returns:
        Two bool arrays (rows, columns).
    """
    start = np.array(points)
    step = np.roll(start, -1, axis=0) - start
    columns, rows = size
    on = np.zeros((rows, columns), bool)
    column, row = _between(start, step, np.gcd(*np.abs(step.T))).round().astype(int).T
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    on[row[inside], column[inside]] = True
    # Where an edge crosses a row of pixels, inside and outside swap for all pixels to the right.
    upwards = step[:, 1:] < 0
    column, row = _between(np.where(upwards, start + step, start), np.where(upwards, -step, step), abs(step[:, 1])).T
    row = row.round().astype(int)
    inside = (row >= 0) & (row < rows)
    right = np.clip(np.floor(column[inside]) + 1, 0, columns).astype(int)
    changes = np.zeros((rows, columns + 1), int)
    np.add.at(changes, (row[inside], right), 1)
    return (np.cumsum(changes, axis=1)[:, :-1] % 2 == 1) & ~on, on


def _between(start: Array, step: Array, counts: Array) -> Array:
    """Return points (N, 2) that cut each edge into this number of equal parts, with its start but not its end."""
    edge = np.repeat(np.arange(len(start)), counts)
    part = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    points: Array = start[edge] + step[edge] * (part / np.maximum(counts, 1)[edge])[:, None]
    return points


def _slice_of(outline: Outline, ct: Grid) -> int:
    """Return the number of the slice that an outline lies on.

    Raises:
        ImageError: it lies on no slice, or beyond the slice's pixels.
    """
    index = (outline.z - ct.origin[2]) / (ct.matrix[2, 2] or np.inf)
    points = np.array(outline.points)
    if abs(index - round(index)) > _SLICE_TOLERANCE or not 0 <= round(index) < ct.size[2]:
        fault = "on no slice"
    elif (points < -1).any() or (points > ct.size[:2]).any():
        fault = "beyond its slice"
    else:
        number: int = round(index)
        return number
    raise ImageError(
        f"an outline at z = {outline.z:g} mm lies {fault}", "the CT", "check that it is the one that was read"
    )


def _centre_mm(marking: Marking, ct: Grid) -> Array:
    """Return the world position of the mean of all outlines' points."""
    points = [(*point, _slice_of(outline, ct)) for outline in marking.outlines for point in outline.points]
    return ct.to_world(np.mean(points, axis=0))


def _nodule(markings: Sequence[Marking], ct: Grid) -> ReadNodule:
    outlines = [outline for marking in markings for outline in marking.outlines]
    slices = [_slice_of(outline, ct) for outline in outlines]
    corners = np.concatenate([outline.points for outline in outlines])
    low = np.array([*np.maximum(corners.min(axis=0), 0), min(slices)])
    high = np.array([*np.minimum(corners.max(axis=0) + 1, ct.size[:2]), max(slices) + 1])
    votes = np.sum([_mask(marking, ct, low, high).astype(int) for marking in markings], axis=0)
    lower, mask = _trimmed(2 * votes >= len(markings), low)
    given = {name: [m.ratings[name] for m in markings if name in m.ratings] for name in RATINGS}
    return ReadNodule(
        readers=len(markings),
        ratings={name: round(float(np.mean(values)), 2) for name, values in given.items() if values},
        diameter_mm=float(np.mean([_diameter_mm(marking, ct) for marking in markings])),
        volume_mm3=float(np.mean([_volume_mm3(marking, ct) for marking in markings])),
        lower=lower,
        mask=mask,
    )


def _mask(marking: Marking, ct: Grid, low: Array, high: Array) -> Array:
    """Return the part that a reader enclosed, on the voxels ``low`` ≤ index < ``high`` (x, y, z); bool, axes z, y, x.

    The outlines of cut-out parts are removed with them, as in pylidc.
    """
    size = high - low
    parts = {True: np.zeros(size[::-1], bool), False: np.zeros(size[::-1], bool)}
    for outline in marking.outlines:
        within, on = enclosed((np.array(outline.points) - low[:2]).tolist(), (int(size[0]), int(size[1])))
        parts[outline.includes][_slice_of(outline, ct) - low[2]] |= within if outline.includes else within | on
    return parts[True] & ~parts[False]


def _trimmed(mask: Array, low: Array) -> tuple[tuple[int, int, int], Array]:
    """Return the smallest box that holds all of a mask: its first voxel's index in the CT, and the mask in it."""
    filled = np.argwhere(mask)
    if not len(filled):
        return tuple(low.tolist()), mask[:0]
    first, last = filled.min(axis=0), filled.max(axis=0)
    return tuple((low + first[::-1]).tolist()), mask[tuple(map(slice, first, last + 1))]


def _diameter_mm(marking: Marking, ct: Grid) -> float:
    from scipy.spatial.distance import pdist

    in_plane = ct.matrix[:, :2].T
    points = (np.array(outline.points) @ in_plane for outline in marking.outlines if len(outline.points) > 1)
    return max(float(pdist(some).max()) for some in points)


def _volume_mm3(marking: Marking, ct: Grid) -> float:
    voxel_mm3 = float(abs(np.linalg.det(ct.matrix)))
    return voxel_mm3 * sum((1 if o.includes else -1) * _area(np.array(o.points)) for o in marking.outlines)


def _area(points: Array) -> float:
    """Return the area of a polygon (N, 2), by the shoelace formula."""
    x, y = points.T.astype(float)
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
