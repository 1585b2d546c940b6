"""The longest diameter of a nodule on one slice, and the longest one at right angles to it.

Diameters run between points of the outline. The outline is where a field, known at the voxels' centres, crosses 0. It
is found by linear interpolation between neighbours (marching squares), so it lies between voxels: at the outer one's
face if voxels are either in or out. The longest diameter would end at two protruding voxels, so each slice is first
averaged over neighbouring voxels. `benchmarks/measurements.py` has the errors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array

_OUTSIDE = -0.5  # the value for a probability of 0, minus one half


@dataclass(frozen=True)
class Axes:
    """The longest diameter on a slice and the longest one at right angles to it, in mm."""

    long_mm: float
    short_mm: float


def longest_axes(field: Array, spacing: tuple[float, float]) -> Axes | None:
    """Return the axes on the slice with the longest diameter, or None if nothing is inside.

    Parts that do not touch within a slice are measured separately.

    Args:
        field: float (slices, rows, columns), above 0 inside. Everything beyond the array is outside.
        spacing: mm between rows and between columns.
    """
    found = [_axes(outline(part) * spacing) for plane in field for part in _parts(plane)]
    return max(found, key=lambda axes: axes.long_mm, default=None)


def _parts(plane: Array) -> Iterator[Array]:
    """Yield each part of a slice's inside by itself, averaged and padded. The other parts count as outside.

    A part that averaging would remove, one voxel or a row of voxels, is left as it is.
    """
    inside = plane > 0
    if not inside.any():
        return
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.astype(np.uint8))))
    for label in range(1, labels.max() + 1):
        part = np.pad(np.where(inside & (labels != label), _OUTSIDE, plane), 2, constant_values=_OUTSIDE)
        smooth = _averaged(_averaged(part, 0), 1)
        yield smooth if (smooth > 0).any() else part


def _averaged(plane: Array, axis: int) -> Array:
    """Return each value with weight 1/2 and its two neighbours along an axis with 1/4 each.

    The plane's two ends are neighbours, which makes no difference, as they have the same values.
    """
    averaged: Array = plane / 2 + (np.roll(plane, 1, axis) + np.roll(plane, -1, axis)) / 4
    return averaged


def outline(plane: Array) -> Array:
    """Return the outline's segments (N, 2 ends, 2), in rows and columns: one or two in a square of four centres.

    Args:
        plane: float (rows, columns), above 0 inside; its border is outside, or the outline stays open there.
    """
    rows, columns = np.indices([n - 1 for n in plane.shape])
    a, b, c, d = plane[:-1, :-1], plane[:-1, 1:], plane[1:, 1:], plane[1:, :-1]
    crossed = np.stack([(a > 0) != (b > 0), (b > 0) != (c > 0), (d > 0) != (c > 0), (a > 0) != (d > 0)], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # where an edge is not crossed
        top, right, bottom, left = a / (a - b), b / (b - c), d / (d - c), a / (a - d)
    points = np.stack(
        [
            np.stack([rows, columns + top], axis=-1),
            np.stack([rows + right, columns + 1], axis=-1),
            np.stack([rows + 1, columns + bottom], axis=-1),
            np.stack([rows + left, columns], axis=-1),
        ],
        axis=2,
    )
    single, double = crossed.sum(axis=-1) == 2, crossed.all(axis=-1)
    # Two corners that face each other across a square are kept apart, as components are.
    falling, rising = points[double & (a > 0)][:, [0, 3, 1, 2]], points[double & (b > 0)]
    return np.concatenate([part.reshape(-1, 2, 2) for part in (points[single][crossed[single]], falling, rising)])


def _axes(segments: Array) -> Axes:
    """Return the axes of an outline of segments (N, 2 ends, 2) in mm."""
    ends = segments.reshape(-1, 2)
    away = np.linalg.norm(ends[:, None] - ends, axis=-1)
    first, second = np.unravel_index(away.argmax(), away.shape)
    long = float(away[first, second])
    along = (ends[second] - ends[first]) / long
    return Axes(long, _widest(segments @ along, segments @ (along[1], -along[0])))


def _widest(along: Array, across: Array) -> float:
    """Return the greatest distance across an outline; ``along`` and ``across`` are its segments' coordinates.

    Both are (N, 2 ends). Between two ends, the outer edges of the outline are a convex and a concave function. So the
    greatest distance is at one of the ends.
    """
    places = np.unique(along)
    start, step = along[:, :1], np.diff(along)
    share = np.divide(places - start, step, out=np.zeros((len(along), len(places))), where=step != 0)
    edge = across[:, :1] + share * np.diff(across)
    crossed = (along.min(axis=1)[:, None] <= places) & (places <= along.max(axis=1)[:, None])
    upper = np.where(crossed, edge, -np.inf).max(axis=0)
    lower = np.where(crossed, edge, np.inf).min(axis=0)
    return float((upper - lower).max())
