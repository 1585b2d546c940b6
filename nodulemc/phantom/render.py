"""Voxels of a procedural scan: tissue, lungs, fissures, vessels, bronchi, nodules, then noise.

Anatomy varies slowly. So its distances and HU are computed on a lattice of 2.5 mm that is fixed to the body, and
interpolated linearly. Edges are then drawn from the distances, as wide as the scanner's blur makes them. Every step is
pointwise or seeded by position, so a part of a scan has exactly the voxels of the whole.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nodulemc.arrays import Array
from nodulemc.geometry import Grid
from nodulemc.phantom.anatomy import Anatomy
from nodulemc.phantom.nodule import Nodule, Rendered, render_nodule
from nodulemc.phantom.scanner import Scanner, noise, white_noise
from nodulemc.phantom.vessels import LungTrees, Tubes

LATTICE_MM = 2.5
VESSEL_HU, LUMEN_HU = 35.0, -960.0
FISSURE_MM = 0.45
HU_RANGE = (-1024, 3071)
# A smoothstep of width w has the standard deviation w / sqrt(20). A triangle of half width h has h / sqrt(6).
_STEP_WIDTH = np.sqrt(20.0)
_LINE_WIDTH = np.sqrt(6.0)
_SLAB = 48


@dataclass(frozen=True)
class PlacedNodule:
    """A nodule in a scan: its form, the world point of its centroid, and its diameter in mm."""

    nodule: Nodule
    centroid: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True)
class Scene:
    """Everything that one scan shows.

    Attributes:
        anatomy, trees: The patient's body, in body coordinates.
        nodules: The nodules, in world coordinates.
        scanner, grid: The imaging. The grid's direction is the identity.
        offset, stretch: world = body × stretch + offset, per axis.
        texture_key, noise_key: The seeds of the patient's parenchyma and of the scan's noise.
    """

    anatomy: Anatomy
    trees: LungTrees
    nodules: tuple[PlacedNodule, ...]
    scanner: Scanner
    grid: Grid
    offset: Array
    stretch: Array
    texture_key: tuple[int, ...]
    noise_key: tuple[int, ...]


def render(scene: Scene, drawn: list[Rendered]) -> Array:
    """Return the whole scan: int16 HU, axes z, y, x; ``drawn`` is `draw_nodules` of the same scene."""
    width, height, depth = scene.grid.size
    out = np.empty((depth, height, width), np.int16)
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        out[start:stop] = render_box(scene, (0, 0, start), (width, height, stop), drawn)
    return out


def draw_nodules(scene: Scene) -> list[Rendered]:
    """Return the scan's nodules on its grid, in the scene's order."""
    return [render_nodule(n.nodule, n.centroid, n.diameter, scene.grid, scene.scanner.blur) for n in scene.nodules]


def render_box(scene: Scene, lower: ArrayLike, upper: ArrayLike, drawn: list[Rendered]) -> Array:
    """Return the voxels ``lower`` ≤ index < ``upper`` (x, y, z) of the scan: int16 HU, axes z, y, x.

    Args:
        scene: The scan.
        lower: The first index.
        upper: The index after the last one.
        drawn: The result of `draw_nodules` for the same scene.
    """
    low, high = np.asarray(lower), np.asarray(upper)
    axes = [
        scene.grid.origin[k] + np.arange(low[k], high[k]) * scene.grid.spacing[k] for k in range(3)
    ]  # world coordinates of the voxels along x, y, z
    hu = _background(scene, axes)
    _draw_tubes(hu, scene, axes, scene.trees.vessels, VESSEL_HU)
    _draw_tubes(hu, scene, axes, scene.trees.bronchi, LUMEN_HU)
    for nodule in drawn:
        _add_nodule(hu, nodule, low, high)
    hu += noise(scene.noise_key, scene.scanner.noise_filter, low, high) * _noise_level(scene, axes)
    np.clip(hu, *HU_RANGE, out=hu)
    return np.rint(hu, out=hu).astype(np.int16)


def _add_nodule(hu: Array, nodule: Rendered, lower: Array, upper: Array) -> None:
    low, high = np.maximum(lower, nodule.lower), np.minimum(upper, nodule.upper)
    if (low >= high).any():
        return
    target = hu[tuple(slice(a, b) for a, b in zip((low - lower)[::-1], (high - lower)[::-1], strict=True))]
    source = tuple(slice(a, b) for a, b in zip((low - nodule.lower)[::-1], (high - nodule.lower)[::-1], strict=True))
    target *= 1 - nodule.cover[source]
    target += nodule.filled[source]


def _background(scene: Scene, axes: list[Array]) -> Array:
    """Return everything but vessels, bronchi and nodules, without noise; float32 z, y, x."""
    places = [
        ((axis - offset) / (stretch * LATTICE_MM))
        for axis, offset, stretch in zip(axes, scene.offset, scene.stretch, strict=True)
    ]
    first = [int(np.floor(p[0])) - 1 for p in places]
    last = [int(np.floor(p[-1])) + 3 for p in places]
    fields = _lattice(scene, first, last)
    weights = []
    for place, start in zip(places, first, strict=True):
        index = np.floor(place).astype(int)
        weights.append((index - start - 1, (place - index).astype(np.float32)))
    (ix, tx), (iy, ty), (iz, tz) = weights
    out = np.empty((len(iz), len(iy), len(ix)), np.float32)
    planes: dict[int, Array] = {}

    def plane(k: int) -> Array:
        """All fields (F, y, x) of one lattice plane at the voxels' x and y."""
        if k not in planes:
            rows = _between(fields[:, k], ix, tx, 2)
            planes[k] = _between(rows, iy, ty[:, None], 1)
        return planes[k]

    for k, (index, t) in enumerate(zip(iz, tz, strict=True)):
        for old in [j for j in planes if j < index]:
            del planes[old]
        low, high = plane(index), plane(index + 1)
        fields_here = high - low
        fields_here *= t
        fields_here += low
        out[k] = _compose(scene, fields_here)
    return out


def _between(array: Array, index: Array, t: Array, axis: int) -> Array:
    """Interpolate linearly along an axis at ``index + t``."""
    out = np.take(np.diff(array, axis=axis), index, axis)
    out *= t
    out += np.take(array, index, axis)
    return out


def _lattice(scene: Scene, first: list[int], last: list[int]) -> Array:
    """Return fields (F, z, y, x) on lattice nodes first ≤ node < last, without one node of margin at each end.

    The fields are tissue HU, lung HU, lung distance, depth in bone, and distance to the oblique and the minor fissure.
    Lung and fissure distances are in standard deviations of the scanner's blur across the surface.
    """
    x, y, z = (
        (np.arange(a, b, dtype=np.float32) * np.float32(LATTICE_MM)).reshape(
            [-1 if k == 2 - axis else 1 for k in range(3)]
        )
        for axis, (a, b) in enumerate(zip(first, last, strict=True))
    )
    thorax, tissue, bone = scene.anatomy.tissue(x, y, z)
    texture = white_noise(scene.texture_key, np.array(first)[::-1], np.array(last)[::-1])
    lung = scene.anatomy.lung_tissue(x, y, z, texture)
    inner = (slice(1, -1),) * 3
    return np.stack(
        [
            tissue[inner],
            lung[inner],
            _in_blurs(scene, thorax.lung),
            bone[inner],
            _in_blurs(scene, thorax.oblique_fissure),
            _in_blurs(scene, thorax.minor_fissure),
        ]
    )


def _in_blurs(scene: Scene, distance: Array) -> Array:
    """Return a distance field on the lattice without its margin, in blurs across its surface, exact to first order."""
    c = slice(1, -1)
    spread: Array | np.float32 = np.float32(1e-6)
    slope: Array | np.float32 = np.float32(1e-6)
    for axis, sigma in zip((2, 1, 0), scene.scanner.blur, strict=True):
        ahead, behind = [c, c, c], [c, c, c]
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        square = ((distance[tuple(ahead)] - distance[tuple(behind)]) / np.float32(2 * LATTICE_MM)) ** 2
        slope = slope + square
        spread = spread + square * np.float32(sigma**2)
    # distance / |slope| is the distance in mm; spread / slope² is the blur's variance along the normal.
    blurs: Array = np.clip(distance[c, c, c] / np.sqrt(spread), -60, 60)
    return blurs


def _compose(scene: Scene, fields: Array) -> Array:
    """Return one slice's HU (y, x) from its fields (F, y, x)."""
    hu: Array
    hu, lung_hu, lung, bone, oblique, minor = fields
    edge = np.float32(2.2 * max(scene.scanner.blur[:2]) * 2)
    flat_bone = np.flatnonzero(bone > -edge / 2)
    if len(flat_bone):
        depth = bone.reshape(-1)[flat_bone]
        target = hu.reshape(-1)
        value = target[flat_bone]
        target[flat_bone] = value + _smoothstep(depth / edge + np.float32(0.5)) * (scene.anatomy.bone_hu(depth) - value)
    contrast = np.float32(FISSURE_MM * (VESSEL_HU - scene.anatomy.lung_hu) / (_LINE_WIDTH * scene.scanner.blur[0]))
    width = np.float32(_LINE_WIDTH)
    for distance, exists in ((oblique, None), (minor, oblique)):
        near = np.abs(distance) < width
        if exists is not None:
            near &= exists > 0
        near = np.flatnonzero(near)
        lung_hu.reshape(-1)[near] += contrast * (1 - np.abs(distance.reshape(-1)[near]) / width)
    lung /= np.float32(_STEP_WIDTH)
    lung += np.float32(0.5)
    share = _smoothstep(lung)
    lung_hu -= hu
    lung_hu *= share
    hu += lung_hu
    return hu


def _smoothstep(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    step: Array = t * t * (3 - 2 * t)
    return step


def _draw_tubes(hu: Array, scene: Scene, axes: list[Array], tubes: Tubes, value: float) -> None:
    """Blend tubes of one HU value into a box of voxels. If tubes overlap, the largest cover counts."""
    start, end = (p * scene.stretch + scene.offset for p in (tubes.start, tubes.end))
    axis = end - start
    length = np.maximum(np.linalg.norm(axis, axis=1), 1e-6)
    in_plane, _, along_z = scene.scanner.blur
    tilt = (axis[:, 2] / length) ** 2
    # The area of the blur across the tube, as one radius. For a tube along z it is in-plane twice.
    blur = np.sqrt(in_plane * np.sqrt(along_z**2 * (1 - tilt) + in_plane**2 * tilt))
    width = _STEP_WIDTH * blur
    thick = np.maximum(tubes.start_radius, tubes.end_radius)
    reach = (thick + width / 2)[:, None]
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    world_low, world_high = (np.array([a[k] for a in axes]) for k in (0, -1))
    seen = np.flatnonzero(((high > world_low) & (low < world_high)).all(axis=1))
    if not len(seen):
        return
    # A tube thinner than the blur keeps its cross-section. Its peak is its area divided by the blur's.
    mean_radius = (tubes.start_radius + tubes.end_radius)[seen] / 2
    peak = (1 - np.exp(-0.5 * (mean_radius / blur[seen]) ** 2)) / _smoothstep(mean_radius / width[seen] + 0.5)
    spacing = np.array(scene.grid.spacing)
    size = np.array([len(a) for a in axes])
    first = np.clip(np.ceil((low[seen] - world_low) / spacing).astype(int), 0, size)
    last = np.clip(np.floor((high[seen] - world_low) / spacing).astype(int) + 1, 0, size)
    cover = np.zeros_like(hu)
    unit = np.float32(1) / (length[seen] ** 2).astype(np.float32)
    rows = zip(
        first.tolist(),
        last.tolist(),
        start[seen].tolist(),
        axis[seen].astype(np.float32).tolist(),
        unit.tolist(),
        (tubes.start_radius / width)[seen].tolist(),
        ((tubes.end_radius - tubes.start_radius) / width)[seen].tolist(),
        (1 / width[seen]).tolist(),
        peak.tolist(),
        strict=True,
    )
    x, y, z = axes
    for (x0, y0, z0), (x1, y1, z1), (sx, sy, sz), (ax, ay, az), inverse, r0, dr, per_width, top in rows:
        px = (x[x0:x1] - sx).astype(np.float32)
        py = (y[y0:y1] - sy).astype(np.float32)[:, None]
        pz = (z[z0:z1] - sz).astype(np.float32)[:, None, None]
        along = px * ax + (py * ay + pz * az)
        t = along * inverse
        np.minimum(np.maximum(t, 0, out=t), 1, out=t)
        square = px * px + (py * py + pz * pz)
        along *= -2
        along += t * (1 / inverse)
        along *= t
        square += along
        np.maximum(square, 0, out=square)
        depth = np.sqrt(square, out=square)
        depth *= -per_width
        t *= dr
        depth += t
        depth += r0 + 0.5
        np.minimum(np.maximum(depth, 0, out=depth), 1, out=depth)
        np.multiply(depth, -2, out=t)
        t += 3
        depth *= depth
        depth *= t
        depth *= top
        part = cover[z0:z1, y0:y1, x0:x1]
        np.maximum(part, depth, out=part)
    cover *= np.float32(value) - hu
    hu += cover


def _noise_level(scene: Scene, axes: list[Array]) -> Array:
    """Return the standard deviation in HU (z, y, x). It is highest deep in the body, and at the shoulders."""
    x, y, z = (
        ((axis - offset) / stretch).astype(np.float32)
        for axis, offset, stretch in zip(axes, scene.offset, scene.stretch, strict=True)
    )
    across = np.exp(-((x / 150) ** 2)) * np.exp(-(((y - 5) / 110) ** 2))[:, None]
    shoulders = 1 + np.float32(0.35) * np.clip((z - 50) / 60, 0, 1)
    highest = shoulders * np.float32(scene.scanner.noise_hu)
    level: Array = (np.float32(0.6) + np.float32(0.4) * across) * highest[:, None, None]
    return level
