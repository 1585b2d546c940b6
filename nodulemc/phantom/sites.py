"""The site of a nodule in a procedural lung, given its attachment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array
from nodulemc.phantom.anatomy import Anatomy, Thorax
from nodulemc.phantom.nodule import Nodule
from nodulemc.phantom.vessels import Tubes

LOBES = ("right upper", "right middle", "right lower", "left upper", "left lower")
_CANDIDATES = 600
_VESSEL_RADIUS_MM = (0.8, 2.2)
_GAP_MM = 6.0


@dataclass(frozen=True)
class Site:
    """A place in body coordinates.

    Attributes:
        point: (3,) the point where the nodule touches its attachment. For a free nodule, its centroid.
        normal: (3,) the unit vector out of the lung (pleura), across the fissure, or away from the vessel.
        lobe: The name of the lobe. Empty if it is not known.
    """

    point: Array
    normal: Array
    lobe: str

    def centroid(self, nodule: Nodule, diameter: float) -> Array:
        """Return the body coordinates of the centroid of a nodule of this diameter (mm) at this site."""
        if nodule.plane is not None:
            scale = diameter / nodule.measures.diameter
            _, distance = nodule.plane
            return self.point - self.normal * (distance * scale) + nodule.measures.centroid * scale
        if nodule.traits.attachment == "vessel":
            return self.point + self.normal * (0.4 * diameter)
        return self.point


def choose_site(
    anatomy: Anatomy,
    vessels: Tubes,
    attachment: str,
    diameter: float,
    taken: Sequence[tuple[Array, float]],
    rng: np.random.Generator,
) -> Site:
    """Draw a site for a nodule.

    Args:
        anatomy: The patient's body.
        vessels: The patient's vessels.
        attachment: none, vessel, pleura or fissure.
        diameter: The largest diameter that the nodule will reach, mm.
        taken: Points (3,) and diameters of the patient's earlier nodules. The site keeps clear of them.
        rng: The source of random numbers.
    """
    clearance = diameter / 2 + 3
    while True:
        points, normals = _candidates(anatomy, vessels, attachment, clearance, rng)
        for point, normal in zip(points, normals, strict=True):
            if all(np.linalg.norm(point - p) > (diameter + d) * 0.75 + _GAP_MM for p, d in taken):
                inside = (point - 2 * normal if attachment == "pleura" else point).astype(np.float32)
                lobe = anatomy.lobe(anatomy.thorax(*inside[:, None]), inside[:1])
                return Site(point, normal, LOBES[int(lobe[0])])
        clearance *= 0.85


def _candidates(
    anatomy: Anatomy, vessels: Tubes, attachment: str, clearance: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return points (N, 3) and normals (N, 3) that suit the attachment."""
    if attachment == "vessel":
        radius = (vessels.start_radius + vessels.end_radius) / 2
        fitting = np.flatnonzero((radius > _VESSEL_RADIUS_MM[0]) & (radius < _VESSEL_RADIUS_MM[1]))
        chosen = rng.choice(fitting, _CANDIDATES)
        points = (vessels.start[chosen] + vessels.end[chosen]) / 2
        aside = np.cross(vessels.end[chosen] - vessels.start[chosen], rng.normal(size=(_CANDIDATES, 3)))
        normals = aside / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
        return _kept(_lung_depth(anatomy, points) > clearance, points, normals)
    half = np.array([anatomy.half_width, anatomy.half_depth, 140.0])
    points = rng.uniform(-half, half, (_CANDIDATES, 3))
    if attachment == "none":
        thorax = anatomy.thorax(*points.T.astype(np.float32))
        # The largest nodules would find no place if they had to keep completely clear of the fissures.
        good = (thorax.lung > clearance) & (anatomy.fissure_distance(thorax) > min(clearance, 9))
        return _kept(good, points, np.zeros_like(points))
    if attachment == "fissure":
        points = points[_lung_depth(anatomy, points) > clearance]
        for _ in range(3):
            thorax = anatomy.thorax(*points.T.astype(np.float32))
            normals = anatomy.fissure_normal(points)
            points = points - normals * _signed_fissure(thorax)[:, None]
        thorax = anatomy.thorax(*points.T.astype(np.float32))
        good = (anatomy.fissure_distance(thorax) < 0.5) & (thorax.lung > clearance)
        return _kept(good, points, normals)
    points = points[np.abs(_lung_depth(anatomy, points) - 8) < 8]
    for _ in range(4):
        normals = -anatomy.inward_normal(points)
        points = points + normals * _lung_depth(anatomy, points)[:, None]
    thorax = anatomy.thorax(*points.T.astype(np.float32))
    # Only costal pleura counts, where the lung's surface is the cavity's, and away from the sharp recesses.
    inside = points - normals * (1.2 * clearance)
    good = (np.abs(thorax.lung) < 0.3) & (thorax.cavity < 1) & (_lung_depth(anatomy, inside) > 0.8 * clearance)
    return _kept(good, points, normals)


def _kept(good: Array, points: Array, normals: Array) -> tuple[Array, Array]:
    """Return those points (M, 3) and normals (M, 3) of N that are good (N,)."""
    return points[good], normals[good]


def _lung_depth(anatomy: Anatomy, points: Array) -> Array:
    """Return the depth (mm) in the lung (N,) at points (N, 3), positive inside."""
    return anatomy.thorax(*points.T.astype(np.float32)).lung


def _signed_fissure(thorax: Thorax) -> Array:
    """Return the distance (mm) from the nearest fissure, of the shape of ``thorax``, positive above or in front."""
    minor = (thorax.oblique_fissure > 0) & (np.abs(thorax.minor_fissure) < np.abs(thorax.oblique_fissure))
    return np.where(minor, thorax.minor_fissure, thorax.oblique_fissure)
