"""A nodule's shape and substance, and the share of each voxel that it fills.

The body is star-shaped: along each direction from its centre it ends at one radius. Its volume, and so its equivalent
diameter, is exact by construction. Spicules are drawn, but belong neither to the diameter nor to the mask, as readers
outline a nodule's body.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from nodulemc.arrays import Array
from nodulemc.geometry import Grid
from nodulemc.phantom.malignancy import Traits

SOFT_TISSUE_HU = 40.0
_BLUR_REACH = 3.0
# The largest radius is found on a lattice of directions. Between them it may be slightly larger.
_SAFETY = 1.05


@dataclass(frozen=True)
class Nodule:
    """One lesion's form, the same in every scan except for its size. Directions are unit vectors, lengths are in radii.

    Attributes:
        traits: The margin, density, calcification and attachment.
        axes: (3, 3) the ellipsoid's axes as rows, divided by their half lengths.
        bumps: (K, 3) the directions of unevenness; ``bump_height`` (K,) and their concentration ``bump_width``.
        lobes: (L, 3) the directions of the centres of spheres joined to the body; ``lobe_distance`` and ``lobe_radius``
            (L,).
        spicules: (S, 3) the directions of spicules; ``spicule_length`` (S,) in mm.
        plane: The (3,) unit vector out of the lung and the distance of the pleura from the centre. Or None.
        fill: The share of air that a ground-glass part replaces.
        core: The radius of a part-solid nodule's core, and the offset (3,) of its centre.
        tissue_hu, calcium_hu: HU of the solid substance and of its calcified part.
    """

    traits: Traits
    axes: Array
    bumps: Array
    bump_height: Array
    bump_width: float
    lobes: Array
    lobe_distance: Array
    lobe_radius: Array
    spicules: Array
    spicule_length: Array
    plane: tuple[Array, float] | None
    fill: float
    core: tuple[float, Array]
    tissue_hu: float
    calcium_hu: float

    def radius(self, directions: Array) -> Array:
        """Return the relative radius along unit directions (N, 3)."""
        radius: Array = 1 / np.linalg.norm(directions @ self.axes.T, axis=1)
        radius *= 1 + np.exp(self.bump_width * (directions @ self.bumps.T - 1)) @ self.bump_height
        if len(self.lobes):
            cosine = directions @ self.lobes.T
            chord = self.lobe_radius**2 - self.lobe_distance**2 * (1 - cosine**2)
            far_side = self.lobe_distance * cosine + np.sqrt(np.maximum(chord, 0))
            radius = np.maximum(radius, np.where((chord > 0) & (cosine > 0), far_side, 0).max(axis=1))
        if self.plane is not None:
            normal, distance = self.plane
            radius = np.minimum(radius, distance / np.maximum(directions @ normal, 1e-6))
        return radius

    @cached_property
    def measures(self) -> "Measures":
        """The body's size for a radius scale of 1 mm."""
        directions = _sphere(4000)
        radius = self.radius(directions)
        volume = 4 / 3 * np.pi * np.mean(radius**3)
        centroid = np.pi * np.mean(radius[:, None] ** 4 * directions, axis=0) / volume
        return Measures(float((6 * volume / np.pi) ** (1 / 3)), centroid, float(radius.max()))


@dataclass(frozen=True)
class Measures:
    """The diameter of the sphere of equal volume, the centroid (3,) and the largest radius of a body."""

    diameter: float
    centroid: Array
    farthest: float


@dataclass(frozen=True)
class Rendered:
    """A nodule on a box of voxels, arrays (z, y, x).

    Attributes:
        lower, upper: The box, in indices x, y, z of the grid that the nodule was drawn on.
        cover: The blurred share of each voxel that its substance takes, 0-1. ``hu`` times it is ``filled``.
        filled: The blurred product of HU and cover.
        mask: uint8, 1 if the voxel's centre lies in the body.
    """

    lower: Array
    upper: Array
    cover: Array
    filled: Array
    mask: Array


def sample_nodule(rng: np.random.Generator, traits: Traits, normal: Array) -> Nodule:
    """Draw a form for these traits.

    Args:
        rng: The source of random numbers.
        traits: The traits of the nodule.
        normal: (3,) the unit vector along which the surroundings bind the nodule: out of the lung for pleura, across
            the fissure for fissure. It is ignored otherwise.
    """
    axes = _random_rotation(rng)
    halves = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.72, 0.95)])
    if traits.attachment == "fissure":  # flat against the fissure, like intrapulmonary lymph nodes
        axes = _rotation_with_last_row(rng, normal)
        halves = np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.5, 0.68)])
    count, height, width = (18, (-0.16, 0.24), 16.0) if traits.margin == "spiculated" else (5, (-0.02, 0.04), 3.0)
    lobes = int(rng.integers(4, 8)) if traits.margin == "lobulated" else 0
    spicules = int(rng.integers(14, 26)) if traits.margin == "spiculated" else 0
    distance = rng.uniform(0.55, 0.85)
    return Nodule(
        traits=traits,
        axes=axes / halves[:, None],
        bumps=_spread_directions(rng, count),
        bump_height=rng.uniform(*height, count),
        bump_width=width,
        lobes=_spread_directions(rng, lobes),
        lobe_distance=rng.uniform(0.55, 0.8, lobes),
        lobe_radius=rng.uniform(0.42, 0.6, lobes),
        spicules=_spread_directions(rng, spicules),
        spicule_length=rng.uniform(3.0, 9.0, spicules),
        plane=(normal, distance) if traits.attachment == "pleura" else None,
        fill=rng.uniform(0.24, 0.42),
        core=(rng.uniform(0.35, 0.62), rng.uniform(-0.15, 0.15, 3)),
        tissue_hu=rng.uniform(20, 55),
        calcium_hu=rng.uniform(300, 800),
    )


def render_nodule(
    nodule: Nodule, centroid: ArrayLike, diameter: float, grid: Grid, blur: tuple[float, float, float]
) -> Rendered:
    """Draw a nodule on a grid.

    Args:
        nodule: The form of the nodule.
        centroid: The world point of the body's centroid, mm.
        diameter: The diameter of the sphere with the body's volume, mm.
        grid: The grid.
        blur: The standard deviations of the point spread function along the grid's axes, mm.
    """
    body = nodule.measures
    scale = diameter / body.diameter
    centre = np.asarray(centroid) - scale * body.centroid
    farthest = _SAFETY * scale * body.farthest + float(nodule.spicule_length.max(initial=0.0))
    reach = farthest + _BLUR_REACH * max(blur)
    lower, upper = grid.box(centre, 2 * reach)
    spacing = np.array(grid.spacing)
    fine = 0.36 if diameter < 12 else 0.55
    parts = np.maximum(np.ceil(spacing / fine).astype(int), 1)
    samples = [(np.arange((hi - lo) * n) + 0.5) / n - 0.5 + lo for lo, hi, n in zip(lower, upper, parts, strict=True)]
    fill, hu = _substance(nodule, _offsets(grid, samples, centre), scale, farthest)
    voxels = _offsets(grid, [np.arange(lo, hi) for lo, hi in zip(lower, upper, strict=True)], centre)
    weights = [_blur_weights(sigma / mm, n) for sigma, mm, n in zip(blur, spacing, parts, strict=True)]
    return Rendered(
        lower,
        upper,
        _sampled(fill, weights, parts),
        _sampled(fill * hu, weights, parts),
        _in_body(nodule, voxels, scale).astype(np.uint8),
    )


def _offsets(grid: Grid, samples: list[Array], centre: Array) -> Array:
    """Return the world offsets (z, y, x, 3) from the centre, in mm, of continuous indices along x, y and z."""
    offsets = np.zeros((*(len(s) for s in samples[::-1]), 3), np.float32)
    for axis, along in enumerate(samples):
        steps = along[:, None] * grid.matrix[:, axis]
        if axis == 0:
            steps += np.array(grid.origin) - centre
        offsets += steps.astype(np.float32).reshape([-1 if 2 - axis == k else 1 for k in range(3)] + [3])
    return offsets


def _in_body(nodule: Nodule, offsets: Array, scale: float) -> Array:
    """Return whether points (..., 3) lie in the body."""
    distance = np.maximum(np.linalg.norm(offsets, axis=-1), 1e-3).reshape(-1)
    edge = scale * nodule.radius(offsets.reshape(-1, 3) / distance[:, None])
    inside: Array = (distance <= edge).reshape(offsets.shape[:-1])
    return inside


def _substance(nodule: Nodule, offset: Array, scale: float, farthest: float) -> tuple[Array, Array]:
    """Return the filled share and HU at offsets (z, y, x, 3) from the centre; z, y, x."""
    shape = offset.shape[:-1]
    offset = offset.reshape(-1, 3)
    distance = np.linalg.norm(offset, axis=1)
    near = np.flatnonzero(distance < farthest)
    offset, distance = offset[near], np.maximum(distance[near], 1e-3)
    direction = offset / distance[:, None]
    edge = scale * nodule.radius(direction).astype(np.float32)
    fill, hu = (distance <= edge).astype(np.float32), np.full(len(near), nodule.tissue_hu, np.float32)
    traits = nodule.traits
    if traits.density != "solid":
        # Ground glass thins out towards its edge.
        ground_glass = nodule.fill * np.clip(0.35 + (edge - distance) / (0.35 * scale), 0, 1)
        fill *= np.where(_in_core(nodule, offset, scale), np.float32(1), ground_glass)
        hu[:] = SOFT_TISSUE_HU
    if traits.calcification != "none":
        depth = distance / edge
        calcified = {"central": depth < 0.6, "laminated": np.abs(depth - 0.6) < 0.15, "diffuse": depth < 0.95}
        hu[calcified[traits.calcification]] = nodule.calcium_hu
    if len(nodule.spicules):
        strength = np.float32(1.0 if traits.density == "solid" else 0.5)
        fill = np.maximum(fill, strength * _spicule_fill(nodule, direction, distance, edge))
    return _laid_out(fill, near, shape), _laid_out(hu, near, shape)


def _laid_out(values: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of this shape with values at these places (flat indices), and zero elsewhere."""
    out = np.zeros(shape, np.float32)
    out.reshape(-1)[places] = values
    return out


def _in_core(nodule: Nodule, offset: Array, scale: float) -> Array:
    if nodule.traits.density != "part-solid":
        return np.zeros(len(offset), bool)
    radius, shift = nodule.core
    inside: Array = np.linalg.norm((offset / scale - shift) @ nodule.axes.T, axis=1) < radius
    return inside


def _spicule_fill(nodule: Nodule, direction: Array, distance: Array, edge: Array) -> Array:
    """Return 1 in a spicule, a cone that starts just below the surface and points outwards."""
    fill = np.zeros(len(distance), np.float32)
    height = distance - edge
    shell = np.flatnonzero((height > -1.0) & (height < nodule.spicule_length.max()))
    cosine = direction[shell] @ nodule.spicules.T.astype(np.float32)
    aside = distance[shell, None] * np.sqrt(np.maximum(1 - cosine**2, 0))
    width = 1.0 * (1 - height[shell, None] / nodule.spicule_length.astype(np.float32))
    within = (cosine > 0) & (aside < width)
    if nodule.plane is not None:
        normal, _ = nodule.plane
        within &= (direction[shell] @ normal < 0.5)[:, None]
    fill[shell[within.any(axis=1)]] = 1
    return fill


def _blur_weights(sigma: float, parts: int) -> tuple[int, Array]:
    """Return the first sample relative to a voxel's own first one, and a Gaussian's weights for ``sigma`` voxels."""
    reach = int(np.ceil(3.5 * sigma * parts))
    steps = np.arange(-reach, parts + reach)
    weights = np.exp(-0.5 * (((steps + 0.5) / parts - 0.5) / sigma) ** 2)
    return -reach, weights / weights.sum()


def _sampled(array: Array, weights: list[tuple[int, Array]], parts: Array) -> Array:
    """Return weighted means of ``parts`` samples per voxel and their neighbours, per axis (x, y, z).

    Arrays are z, y, x. The code uses no matrix products, because their rounding depends on the number of threads.
    """
    for axis, (first, taps), n in zip((2, 1, 0), weights, parts, strict=True):
        padding = [(0, 0)] * 3
        padding[axis] = (-first, len(taps) + first - n)
        padded = np.pad(array, padding)
        voxels = array.shape[axis] // n
        array = np.zeros([voxels if k == axis else size for k, size in enumerate(array.shape)], np.float32)
        for step, tap in enumerate(taps.astype(np.float32)):
            part = [slice(None)] * 3
            part[axis] = slice(step, step + (voxels - 1) * n + 1, n)
            array += tap * padded[tuple(part)]
    return array


def _sphere(count: int) -> Array:
    """Return evenly spread unit vectors (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + np.sqrt(5)) * k
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)


def _spread_directions(rng: np.random.Generator, count: int) -> Array:
    """Return random unit vectors with some distance between them."""
    if not count:
        return np.zeros((0, 3))
    directions = _sphere(count) + rng.normal(0, 0.35 / np.sqrt(count) * 2, (count, 3))
    turned: Array = directions / np.linalg.norm(directions, axis=1, keepdims=True) @ _random_rotation(rng).T
    return turned


def _random_rotation(rng: np.random.Generator) -> Array:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q


def _rotation_with_last_row(rng: np.random.Generator, last: Array) -> Array:
    first = np.cross(last, rng.normal(size=3))
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(last, first), last])
