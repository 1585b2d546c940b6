"""A procedural thorax as functions of position: chest wall, ribs, spine, mediastinum, diaphragm, lungs, fissures.

Body coordinates are in mm, x to the patient's left, y to the back, z to the head, with the carina near the origin. A
scan moves and slightly stretches them (``nodulemc.phantom.render.Scene``). Every function is pointwise. So any part of
a body can be evaluated by itself, with the same values as in the whole. Coordinates ``x``, ``y``, ``z`` are float32
arrays whose shapes broadcast to one another, such as (1, 1, W), (1, H, 1) and (D, 1, 1). Unless stated otherwise,
results are float32 of the broadcast shape.

HU values: air -1000, inflated lung -870 rising by 55 towards the dependent back, fat -105, muscle 50, unenhanced blood
and organs 35-60, marrow 90-190 within cortex of 750 (Hofer, CT Teaching Manual; for lung in low-dose screening,
Gallardo-Estrella et al., PLoS One 2017;12:e0188902).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nodulemc.arrays import Array

AIR, FAT, MUSCLE, BLOOD, LIVER = -1000.0, -105.0, 50.0, 40.0, 56.0
_SOFT_EDGE_MM = 2.5
_Point: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Thorax:
    """Distances in mm at points, float32 of the points' shape.

    Attributes:
        lung, cavity: The depth in the lungs, and in the cavity that holds them; positive inside.
        oblique_fissure: The distance from the oblique fissure of the point's side; positive in front of and above it.
        minor_fissure: The distance from the right lung's minor fissure, positive above it; 1000 on the left.
    """

    lung: Array
    cavity: Array
    oblique_fissure: Array
    minor_fissure: Array


class Anatomy:
    """One patient's thorax, drawn from ``rng``."""

    def __init__(self, rng: np.random.Generator, *, male: bool) -> None:
        scale = 1.0 if male else 0.92
        self.half_width = scale * rng.normal(138, 6)
        self.half_depth = scale * rng.normal(96, 5)
        self.apex = scale * rng.normal(118, 6)
        self.dome = (-scale * rng.normal(82, 6), -scale * rng.normal(93, 6))  # right, left
        self.muscle = rng.uniform(17, 25)
        self.fat = rng.uniform(6, 26) if male else rng.uniform(10, 32)
        self.heart = rng.uniform(0.9, 1.12)
        self.rib_pitch = scale * rng.uniform(24.5, 27)
        self.rib_slope = rng.uniform(0.42, 0.58)
        self.rib_phase = rng.uniform(-0.5, 0.5)
        self.disc_phase = rng.uniform(-0.5, 0.5)
        self.oblique_tilt = np.radians(rng.uniform(48, 58, 2))
        self.oblique_height = rng.uniform(-8, 8, 2)
        self.minor_height = rng.uniform(-18, 2)
        self.warp_phase = rng.uniform(0, 2 * np.pi, (3, 3))
        self.warp_mm = rng.uniform(1.0, 3.0, (3, 3))
        self.marrow = rng.uniform(90, 190)
        self.lung_hu = rng.normal(-872, 14)
        self.gradient_hu = rng.uniform(35, 75)
        self.emphysema = rng.uniform(0.3, 1.0) * (rng.random() < 0.25)
        self.emphysema_waves = np.column_stack([rng.normal(0, 0.16, (6, 3)), rng.uniform(0, 2 * np.pi, 6)])

    def _warped(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Break the symmetry: each coordinate swings slowly with the two others."""
        k = np.float32(2 * np.pi / 230)
        a, f = self.warp_mm.astype(np.float32), self.warp_phase.astype(np.float32)
        return (
            x + a[0, 0] * np.sin(k * y + f[0, 0]) + a[0, 1] * np.sin(k * z + f[0, 1]),
            y + a[1, 0] * np.sin(k * x + f[1, 0]) + a[1, 1] * np.sin(k * z + f[1, 1]),
            z + a[2, 0] * np.sin(k * x + f[2, 0]) + a[2, 1] * np.sin(k * y + f[2, 1]),
        )

    def thorax(self, x: Array, y: Array, z: Array) -> Thorax:
        """Return lungs, their cavity and their fissures. Distances are approximate; the zero surfaces are exact."""
        return self._thorax(*self._warped(x, y, z))

    def _thorax(self, x: Array, y: Array, z: Array) -> Thorax:
        """Return ``thorax`` at warped coordinates."""
        cavity = self._cavity(x, y, z)
        right = x < 0
        radius = np.where(right, np.float32(80), np.float32(72))
        centre = np.where(right, np.float32(-66), np.float32(70))
        fall = ((x - centre) / radius) ** 2 + ((y + 2) / np.float32(100)) ** 2
        diaphragm = z - (np.where(right, *map(np.float32, self.dome)) - np.float32(48) * fall)
        lung = np.minimum(np.minimum(cavity, diaphragm * np.float32(0.8)), -self._mediastinum(x, y, z))
        side = right.astype(int)
        tilt_cos, tilt_sin = (f(self.oblique_tilt).astype(np.float32)[1 - side] for f in (np.cos, np.sin))
        # Positive is in front of and above the oblique fissure, which is slightly curved.
        oblique = (
            (z + np.float32(20) - self.oblique_height.astype(np.float32)[1 - side]) * tilt_cos
            - (y - np.float32(-5)) * tilt_sin
            + np.float32(5) * np.sin(x * np.float32(0.035) + y * np.float32(0.02))
        )
        minor = np.where(
            right,
            z - np.float32(self.minor_height) - np.float32(4) * np.sin(x * np.float32(0.04) - y * np.float32(0.03)),
            np.float32(1e3),
        )
        return Thorax(lung, cavity, oblique, minor)

    def _cavity(self, x: Array, y: Array, z: Array) -> Array:
        """Return the depth (mm) in the cavity at warped coordinates, positive inside."""
        u = np.clip((np.float32(self.apex) - z) / np.float32(175), 1e-3, 1)
        profile = np.sqrt(1 - (1 - u) ** np.float32(2.5))
        xs = (x / (np.float32(self.half_width) * profile)) ** 2
        ys = ((y - 3) / (np.float32(self.half_depth) * (np.float32(0.25) + np.float32(0.75) * profile))) ** 2
        q = np.sqrt(xs + ys - np.float32(0.25) * np.minimum(xs, 4) * np.minimum(ys, 4)) + np.float32(1e-4)
        reach = np.sqrt(x**2 + (y - 3) ** 2) + np.float32(1e-2)
        depth: Array = np.minimum((1 - q) * reach / q, np.float32(self.apex) - z)
        return depth

    def _mediastinum(self, x: Array, y: Array, z: Array) -> Array:
        """Return the depth (mm) in the mediastinum, between the lungs, at warped coordinates, positive inside."""
        parts = [
            _ellipsoid(x, y, z, (24, -24, -64), [self.heart * r for r in (60, 52, 60)]),
            _ellipsoid(x, y, z, (0, -4, 60), (30, 52, 84)),
            _ellipsoid(x, y, z, (-40, 8, -12), (16, 19, 26)),
            _ellipsoid(x, y, z, (38, 8, -6), (16, 18, 24)),
            np.float32(30) - np.sqrt(x**2 + (y - 74) ** 2),
            np.float32(16.5) - np.sqrt((x - 23) ** 2 + (y - 44) ** 2) + np.minimum(0, 45 - z),
            np.float32(1.0) - np.abs(x),
            np.float32(14) - np.sqrt(x**2 + (y - 30) ** 2),
        ]
        depth: Array = np.maximum.reduce(np.broadcast_arrays(*parts))
        return depth

    def lobe(self, thorax: Thorax, x: Array) -> Array:
        """Return the index into ``sites.LOBES`` at each point.

        The result has integers, in the shape of ``thorax``, to which ``x`` broadcasts.
        """
        front = thorax.oblique_fissure > 0
        right = np.where(front, np.where(thorax.minor_fissure > 0, 0, 1), 2)
        return np.where(x < 0, right, np.where(front, 3, 4))

    def fissure_distance(self, thorax: Thorax) -> Array:
        """Return the unsigned distance (mm) to the nearest fissure, float32 of the shape of ``thorax``.

        The minor fissure exists only in front of the oblique one.
        """
        minor = np.where(thorax.oblique_fissure > 0, np.abs(thorax.minor_fissure), np.float32(1e3))
        distance: Array = np.minimum(np.abs(thorax.oblique_fissure), minor)
        return distance

    def tissue(self, x: Array, y: Array, z: Array) -> tuple[Thorax, Array, Array]:
        """Return the thorax, HU of everything but lung and bone, and the depth (mm) in bone, positive inside."""
        x, y, z = self._warped(x, y, z)
        thorax = self._thorax(x, y, z)
        outward = -thorax.cavity
        shoulder = np.float32(1) - np.sqrt((x / 178) ** 2 + ((y - 8) / (self.half_depth + 18)) ** 2)
        wall = np.float32(self.muscle + self.fat) * (1 + np.float32(0.25) * np.clip((y - 20) / 80, 0, 1))
        body = np.maximum(wall - outward, shoulder * 110 - np.clip(70 - z, 0, 200) * np.float32(0.7))
        muscle = np.float32(self.muscle) * (1 + np.float32(0.5) * np.clip(z / 100, 0, 1)) - outward
        hu = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), AIR, np.float32)
        _paint(hu, body, FAT)
        _paint(hu, muscle + 3 * np.sin(x * np.float32(0.07)) * np.sin(z * np.float32(0.05)), MUSCLE)
        _paint(hu, np.where(body < 2.5, body, np.float32(-9)), -20.0)
        _paint(hu, np.float32(2.5) - np.abs(y - np.float32(self.half_depth + 55) + x**2 / 900), -300.0)  # couch
        self._paint_inside(hu, thorax, x, y, z)
        return thorax, hu, self._bone(thorax, x, y, z)

    def _paint_inside(self, hu: Array, thorax: Thorax, x: Array, y: Array, z: Array) -> None:
        """Blend the content of the cavity into ``hu``, float32 of the shape of ``thorax``, at warped coordinates."""
        inside = thorax.cavity
        _paint(hu, inside, -85.0)
        below = np.float32(-70) - z + np.where(x < 0, np.float32(0), np.float32(-8))
        _paint(hu, np.minimum(inside, np.minimum(below, np.float32(6) - x)), LIVER)
        _paint(hu, np.minimum(inside, np.minimum(below, x - np.float32(6))), BLOOD + 6)
        _paint(hu, _ellipsoid(x, y, z, (52, -34, -128), (30, 24, 17)), -950.0)  # gastric bubble
        heart = _ellipsoid(x, y, z, (24, -24, -64), [self.heart * r - 3.5 for r in (60, 52, 60)])
        _paint(hu, heart, BLOOD)
        for start, end, radius in (
            ((-12, -20, -40), (-12, -16, 30), 16),  # ascending aorta
            ((-12, -16, 30), (22, 40, 38), 13.5),  # arch
            ((23, 44, 36), (23, 44, -150), 13.5),  # descending aorta
            ((-27, -14, 70), (-28, -10, -45), 9),  # superior vena cava
            ((20, -26, -20), (12, -2, -6), 13),  # pulmonary trunk
            ((12, -2, -6), (-44, 8, -12), 11),
            ((12, -2, -4), (42, 10, -4), 11),
            ((6, 38, 120), (8, 38, -120), 7),  # oesophagus
            ((-16, -8, 32), (-20, -2, 118), 6),  # arteries to the head and arms
            ((4, 2, 36), (10, 2, 118), 4.5),
            ((15, 14, 38), (28, 14, 110), 5),
            ((-40, 8, -12), (-44, 10, -24), 13),  # hila
            ((38, 8, -6), (42, 10, -16), 12),
        ):
            _paint_tube(hu, x, y, z, start, end, radius, BLOOD)
        for radius, value in ((9.6, 20.0), (8.2, AIR)):  # trachea and main bronchi: wall, then lumen
            for start, end, narrower in (
                ((0, 12, 4), (0, 16, 140), 0.0),
                ((0, 12, 4), (-42, 12, -18), 2.2),
                ((0, 12, 4), (44, 14, -20), 2.8),
            ):
                _paint_tube(hu, x, y, z, start, end, radius - narrower, value)

    def _bone(self, thorax: Thorax, x: Array, y: Array, z: Array) -> Array:
        """Return the depth (mm) in bone at warped coordinates, positive inside."""
        outward = -thorax.cavity
        # The ribs lie in the shell around the cavity and fall from the spine to the front, with one rib per pitch.
        slant = (z + np.float32(self.rib_slope) * (np.float32(self.half_depth) - y)) / np.float32(
            self.rib_pitch
        ) + np.float32(self.rib_phase)
        off = (slant - np.round(slant)) * np.float32(self.rib_pitch * 0.88)
        ribs = np.float32(4.6) - np.sqrt((outward - 7) ** 2 + (off * np.float32(0.72)) ** 2)
        ribs = np.minimum(ribs, (y + np.float32(0.62 * self.half_depth)) * np.float32(0.5))
        ribs = np.minimum(ribs, (np.float32(self.apex) + 6 - z) * np.float32(0.5))
        level = z / np.float32(23) + np.float32(self.disc_phase)
        disc = np.abs(level - np.round(level)) * np.float32(23)
        body = (1 - np.sqrt((x / 18) ** 2 + ((y - 74) / 15) ** 2)) * 15
        body = np.minimum(body, 9.5 - disc)
        canal = np.sqrt(x**2 + (y - 98) ** 2)
        arch = np.minimum(np.minimum(4 - np.abs(canal - 12.5), y - 88), 8 - np.abs(disc - 5))
        spinous = np.minimum(np.minimum(3.2 - np.abs(x), 14 - np.abs(y - 120)), 7 - np.abs(disc - 5))
        sternum = np.minimum(np.minimum(19 - np.abs(x), 5.5 - np.abs(outward - 8)), -(y + 40.0))
        sternum = np.minimum(np.minimum(sternum, z + 62), 62 - z)
        scapula = np.minimum(np.minimum(3.0 - np.abs(outward - 25), y - 20), 34 - np.abs(np.abs(x) - 108))
        scapula = np.minimum(np.minimum(scapula, z + 20), 110 - z)
        clavicle = _capsule(np.abs(x), y, z, (24, -62, 84), (135, -20, 112), 6.5)
        parts = np.broadcast_arrays(ribs, body, arch, spinous, sternum, scapula, clavicle)
        depth: Array = np.maximum.reduce(parts)
        return depth

    def lung_tissue(self, x: Array, y: Array, z: Array, texture: Array) -> Array:
        """Return HU of parenchyma.

        ``texture`` is noise of unit variance, of the points' shape. It represents the smallest vessels.
        """
        hu: Array = np.float32(self.lung_hu) + np.float32(self.gradient_hu) * y / np.float32(90) + 20 * texture
        if self.emphysema:
            waves = sum(np.sin(x * w[0] + y * w[1] + z * w[2] + w[3]) for w in self.emphysema_waves.astype(np.float32))
            upper = np.clip((z + 60) / 120, 0, 1)
            hu = hu - np.float32(70 * self.emphysema) * upper * np.clip(waves - np.float32(0.4), 0, 1)
        return hu

    def bone_hu(self, depth: Array) -> Array:
        """Return HU at depths (mm, of any shape) in bone: cortex, then marrow."""
        hu: Array = np.float32(750) - np.float32(750 - self.marrow) * np.clip((depth - 1) / 2, 0, 1)
        return hu

    def inward_normal(self, points: Array, step: float = 0.5) -> Array:
        """Return unit vectors (N, 3) into the lung at points (N, 3), mm, on its surface.

        They come from differences over ``step`` mm.
        """
        return _unit(self._slope(points, lambda thorax: thorax.lung, step))

    def fissure_normal(self, points: Array, step: float = 0.5) -> Array:
        """Return unit normals (N, 3) of the fissure nearest to points (N, 3), mm.

        They come from differences over ``step`` mm.
        """
        thorax = self.thorax(*points.T.astype(np.float32))
        minor = (thorax.oblique_fissure > 0) & (np.abs(thorax.minor_fissure) < np.abs(thorax.oblique_fissure))
        across_minor = self._slope(points, lambda there: there.minor_fissure, step)
        across_oblique = self._slope(points, lambda there: there.oblique_fissure, step)
        return _unit(np.where(minor[:, None], across_minor, across_oblique))

    def _slope(self, points: Array, field: Callable[[Thorax], Array], step: float) -> Array:
        """Return gradients (N, 3) of a field, per mm, at points (N, 3), mm."""
        columns = []
        for axis in range(3):
            offset = np.zeros(3)
            offset[axis] = step
            ends = [field(self.thorax(*(points + sign * offset).T.astype(np.float32))) for sign in (1, -1)]
            columns.append((ends[0] - ends[1]) / (2 * step))
        return np.stack(columns, axis=1)


def _unit(vectors: Array) -> Array:
    """Return vectors (N, 3), scaled to length 1."""
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit


def _paint(hu: Array, depth: Array, value: float) -> None:
    """Blend ``value`` into ``hu`` where ``depth`` (mm, same shape) is positive, over an edge of _SOFT_EDGE_MM."""
    hu += np.clip(depth / np.float32(_SOFT_EDGE_MM) + np.float32(0.5), 0, 1) * (np.float32(value) - hu)


def _paint_tube(
    hu: Array, x: Array, y: Array, z: Array, start: _Point, end: _Point, radius: float, value: float
) -> None:
    """Blend a tube (mm) into ``hu``. Most boxes that are rendered by themselves contain no part of it."""
    for c, a, b in zip((x, y, z), start, end, strict=True):
        if c.max() < min(a, b) - radius - _SOFT_EDGE_MM or c.min() > max(a, b) + radius + _SOFT_EDGE_MM:
            return
    _paint(hu, _capsule(x, y, z, start, end, radius), value)


def _ellipsoid(x: Array, y: Array, z: Array, centre: _Point, radii: Sequence[float]) -> Array:
    """Return the approximate depth (mm) in an ellipsoid, positive inside."""
    squares = [((c - o) / np.float32(r)) ** 2 for c, o, r in zip((x, y, z), centre, radii, strict=True)]
    q = np.sqrt(squares[0] + squares[1] + squares[2]) + np.float32(1e-4)
    depth: Array = (1 - q) * np.float32(min(radii))
    return depth


def _capsule(x: Array, y: Array, z: Array, start: _Point, end: _Point, radius: float) -> Array:
    """Return the depth (mm) in a tube with round ends, positive inside."""
    axis = np.subtract(end, start).astype(np.float32)
    offsets = [c - o for c, o in zip((x, y, z), np.array(start, np.float32), strict=True)]
    along = sum(o * a for o, a in zip(offsets, axis, strict=True)) / np.float32(axis @ axis)
    along = np.clip(along, 0, 1)
    square = sum((o - along * a) ** 2 for o, a in zip(offsets, axis, strict=True))
    depth: Array = np.float32(radius) - np.sqrt(square)
    return depth
