"""Whether a nodule can be at a point, and in which other convention a file's points may be meant.

Nothing here decides whether a finding is a nodule. It only recognises points beside the patient and in empty lung,
where no nodule can be. The ball, its reach and its contrast were chosen on half of LIDC-IDRI's patients.
`benchmarks/placement.py` judges them on the other half, on phantoms and on random points; docs/reliability.md has its
tables.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.errors import ImageError
from nodulemc.limits import FACE_TOLERANCE_MM
from nodulemc.patch import CENTRE_INDEX, HU_WINDOW, SIZE, VOXEL_MM, extract_patch

# What a nodule has at least: a ball of this radius that is denser than the lung all but everywhere; most vessels are
# thinner. Its centre may lie so far from the point.
BALL_MM = 1.6
REACH_MM = 1.7
BALL_QUANTILE = 0.1
LEAST_CONTRAST_HU = 60
LUNG_HU = (-970, -500)  # darker is the air beside the patient, brighter a vessel, a nodule or a wall
LEAST_LUNG = 0.05  # chosen: of a patch; nodules at the pleura have far more
DARK_HU = -800  # a point brighter than this does not lie in air
TISSUE_HU = -500
AIR_HU = -930  # median of what lies beside the patient; lung is brighter even where it is emphysematous
RIM_MM = (13.0, 15.0)
LEAST_RIM = 0.45
# How much each place speaks for a reading: the log of how much more often nodules are there than random points of a
# scan. Amid lung: 0.9 to 0.08; dense with some lung around: 0.08 to 0.41; else: 0.02 to 0.51; outside: hardly ever.
AMID_LUNG, DENSE, NOWHERE, OUTSIDE = 2.5, -1.6, -3.2, -6.0
LEAST_EVIDENCE = 7.0  # chosen: for another reading; one point in empty lung does not reach it, one outside the CT does
LEAST_CONVERTED = 0.9  # of a file's points can be a nodule's in the other reading
MOST_AS_GIVEN = 0.5  # of them are amid lung as they are
_USUAL_LUNG_HU = -850
_COARSE_MM = 4.0
_LEAST_AIR = 500  # voxels of that size, 32 ml
_BLOCK = 4  # every other voxel
_MOST_OF_BLOCK = 0.6
_MOST_POINTS = 20  # of a file are tried in other readings

Point = Sequence[float]


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of a point, as its patch shows them.

    Attributes:
        contrast_hu: The densest ball of nodule size at the point is so much denser than the lung around, in HU.
        lung_share: The share of the patch that is lung.
        rim_share: The share of lung at 13 to 15 mm from the point.
        is_dark: Whether the point itself (3 mm) is in air or lung.
    """

    contrast_hu: float
    lung_share: float
    rim_share: float
    is_dark: bool

    @property
    def fits(self) -> bool:
        """Whether a nodule can be at the point: something dense, with lung around."""
        return self.contrast_hu >= LEAST_CONTRAST_HU and self.lung_share >= LEAST_LUNG

    @property
    def is_amid_lung(self) -> bool:
        """Whether most nodules are at such a point: something dense with lung on most sides."""
        return self.fits and self.rim_share >= LEAST_RIM


def surroundings(patch: Array) -> Surroundings:
    """Return the surroundings of the point of a patch (64, 64, 64), axes z, y, x, values 0…1."""
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    dark = _hu(np.median(patch[middle, middle, middle])) < DARK_HU
    rim = _is_lung(_hu(patch.ravel()[_rim()])).mean()
    return Surroundings(_contrast_hu(patch), _lung_share(patch), float(rim), bool(dark))


class OpenAir:
    """The air beside the patient, on a grid of about 4 mm: all that is not tissue and reaches the sides of the scan."""

    def __init__(self, volume: Volume) -> None:
        self._image = volume.image
        self._steps = [max(1, round(_COARSE_MM / mm)) for mm in self._image.GetSpacing()]

    def holds(self, point: Point) -> bool:
        """Whether a point x, y, z in mm (LPS) inside the scan lies in that air, or within a voxel of it."""
        index = self._image.TransformPhysicalPointToContinuousIndex([float(c) for c in point])
        near = [round(i / step) for i, step in zip(index, self._steps, strict=True)]
        z, y, x = (slice(max(0, i - 1), i + 2) for i in near[::-1])
        return bool(self._is_air[z, y, x].any())

    @cached_property
    def _is_air(self) -> Array:
        """The air as bool, axes z, y, x; computed on first use, since few scans need it."""
        x, y, z = self._steps
        hu = sitk.GetArrayViewFromImage(self._image)[::z, ::y, ::x]
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray((hu <= TISSUE_HU).astype(np.uint8)))
        labels = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, _LEAST_AIR))
        # Lung, too, reaches the sides of a scan that shows a part of the chest.
        return np.isin(labels, [n for n in self._at_sides(labels) if np.median(hu[labels == n]) < AIR_HU])

    def _at_sides(self, labels: Array) -> set[int]:
        """Return the labels at the scan's faces, except those at head and feet, where lung and windpipe may end."""
        direction = np.array(self._image.GetDirection()).reshape(3, 3)
        along = 2 - int(np.argmax(abs(direction[2])))
        faces = [labels.take(k, axis) for axis in range(3) if axis != along for k in (0, -1)]
        return {int(n) for face in faces for n in np.unique(face)} - {0}


def may_be_misread(around: Sequence[Surroundings]) -> bool:
    """Return whether other readings are worth trying, judged by the places of a file's points."""
    return sum(place.is_amid_lung for place in around) <= MOST_AS_GIVEN * len(around)


def other_reading(volume: Volume, points: Sequence[Point]) -> str | None:
    """Find a convention other than x, y, z in mm (LPS) in which a file's points seem to be meant.

    Args:
        volume: The CT.
        points: The numbers of the file as x, y, z, inside the CT or not.

    Returns:
        The convention that the points' places clearly speak for, or None.
    """
    points, air = points[:_MOST_POINTS], OpenAir(volume)
    found = {
        name: np.array([_evidence(volume, air, read(volume, p)) for p in points]) for name, read in _READINGS.items()
    }
    given = found.pop(None)
    best = max(found, key=lambda name: found[name].sum())
    is_clear = found[best].sum() - given.sum() >= LEAST_EVIDENCE
    return best if is_clear and np.mean(found[best] > NOWHERE) >= LEAST_CONVERTED else None


def _evidence(volume: Volume, air: OpenAir, point: Point) -> float:
    if volume.distance_outside_mm(point) > FACE_TOLERANCE_MM:
        return OUTSIDE
    try:
        place = surroundings(extract_patch(volume, point))
    except ImageError:  # a voxel is NaN or infinite
        return NOWHERE
    if place.is_dark and air.holds(point):
        return OUTSIDE
    return AMID_LUNG if place.is_amid_lung else DENSE if place.fits else NOWHERE


def _indices(volume: Volume, point: Point) -> Point:
    place: tuple[float, ...] = volume.image.TransformContinuousIndexToPhysicalPoint([float(c) for c in point])
    return place


# Of equals the first counts.
_READINGS: dict[str | None, Callable[[Volume, Point], Point]] = {
    None: lambda _, p: p,
    "RAS, not LPS (x and y with the other sign)": lambda _, p: (-p[0], -p[1], p[2]),
    "voxel indices, not mm": _indices,
    "voxel indices in the order z, y, x, not mm": lambda volume, p: _indices(volume, p[::-1]),
    "z, y, x, not x, y, z": lambda _, p: (p[2], p[1], p[0]),
    "y, x, z, not x, y, z": lambda _, p: (p[1], p[0], p[2]),
    "x, z, y, not x, y, z": lambda _, p: (p[0], p[2], p[1]),
}


def _contrast_hu(patch: Array) -> float:
    balls = patch.ravel()[_balls()]
    rank = int(BALL_QUANTILE * (balls.shape[1] - 1))
    densest = np.partition(balls, rank, axis=1)[:, rank].max()
    hu = _hu(patch[::2, ::2, ::2])
    lung = hu[_is_lung(hu)]
    return float(_hu(densest) - (np.median(lung) if lung.size > LEAST_LUNG * hu.size else _USUAL_LUNG_HU))


def _lung_share(patch: Array) -> float:
    """Return the share of blocks of 6 mm that are mostly lung: neither air nor skin, where air and tissue mix."""
    is_lung = _is_lung(_hu(patch[::2, ::2, ::2]))
    n = len(is_lung) // _BLOCK
    blocks = is_lung.reshape(n, _BLOCK, n, _BLOCK, n, _BLOCK).mean(axis=(1, 3, 5))
    return float((blocks > _MOST_OF_BLOCK).mean())


def _hu(values: Array | np.floating[Any]) -> Array:
    low, high = HU_WINDOW
    hu: Array = np.multiply(values, high - low) + low
    return hu


def _is_lung(hu: Array) -> Array:
    low, high = LUNG_HU
    return (low < hu) & (hu < high)


@cache
def _rim() -> Array:
    """Return flat indices into a patch: the voxels 13 to 15 mm from its point."""
    nearer, further = RIM_MM
    ball = _within(further, CENTRE_INDEX)
    return _flat(ball[_distance_mm(ball, CENTRE_INDEX) >= nearer])


@cache
def _balls() -> Array:
    """Return flat indices into a patch: for each ball with its centre near the patch's, the ball's voxels."""
    offsets = _within(BALL_MM, 0)
    return _flat(_within(REACH_MM, CENTRE_INDEX)[:, None] + offsets)


def _within(reach_mm: float, index: float) -> Array:
    """Return the voxel indices (N, 3) within a distance of an index that is the same on all axes."""
    half = reach_mm / VOXEL_MM
    axis = np.arange(math.ceil(index - half), math.floor(index + half) + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[_distance_mm(grid, index) <= reach_mm]


def _distance_mm(grid: Array, index: float) -> Array:
    distance: Array = np.linalg.norm(grid - index, axis=1) * VOXEL_MM
    return distance


def _flat(indices: Array) -> Array:
    """Return the flat indices of a patch's voxels (…, 3)."""
    flat: Array = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), (SIZE,) * 3)
    return flat
