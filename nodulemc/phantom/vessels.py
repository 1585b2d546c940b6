"""Pulmonary arteries, veins and bronchi: trees of tapering tubes that fill the lobes.

Each lobe's terminal points are halved again and again along their longest axis. A branch runs from its parent towards
the middle of the points that it serves. Radii follow Murray's law with the exponent measured in pulmonary arteries, n ~
r^2.4 for n served terminals (Murray, Proc Natl Acad Sci 1926;12:207-214; Huang et al., J Appl Physiol
1996;81:2123-2133).
"""

from dataclasses import dataclass

import numpy as np

from nodulemc.arrays import Array
from nodulemc.phantom.anatomy import Anatomy

_TERMINALS_PER_LUNG = 1300
_TERMINAL_RADIUS_MM = 0.45
_RADIUS_EXPONENT = 1 / 2.4
_ROOTS = {True: ((-38.0, 9.0, -10.0), (-30.0, 16.0, -24.0)), False: ((36.0, 9.0, -6.0), (30.0, 16.0, -22.0))}
_BRONCHUS_FROM_RADIUS_MM = 1.35


@dataclass(frozen=True)
class Tubes:
    """Straight tapering tubes in body coordinates.

    Attributes:
        start, end: (N, 3) mm.
        start_radius, end_radius: (N,) mm.
    """

    start: Array
    end: Array
    start_radius: Array
    end_radius: Array

    @classmethod
    def join(cls, parts: list["Tubes"]) -> "Tubes":
        """Return all tubes of several sets."""
        fields = ("start", "end", "start_radius", "end_radius")
        return cls(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


@dataclass(frozen=True)
class LungTrees:
    """Blood vessels and the lumens of the bronchi that run beside the arteries."""

    vessels: Tubes
    bronchi: Tubes


def grow_trees(anatomy: Anatomy, rng: np.random.Generator) -> LungTrees:
    """Grow arteries, veins and bronchi of both lungs."""
    arteries: list[Tubes] = []
    veins: list[Tubes] = []
    for right in (True, False):
        points, lobes = _terminals(anatomy, rng, right=right)
        for trees, root in zip((arteries, veins), _ROOTS[right], strict=True):
            chosen = rng.permutation(len(points))[:_TERMINALS_PER_LUNG]
            for lobe in np.unique(lobes):
                inside = chosen[lobes[chosen] == lobe]
                if len(inside) > 1:
                    trees.append(_tree(np.array(root), points[inside], rng))
    lumens = _bronchi(Tubes.join(arteries))
    walls = Tubes(lumens.start, lumens.end, lumens.start_radius * 1.15 + 0.3, lumens.end_radius * 1.15 + 0.3)
    return LungTrees(Tubes.join([*arteries, *veins, walls]), lumens)


def _terminals(anatomy: Anatomy, rng: np.random.Generator, *, right: bool) -> tuple[Array, Array]:
    """Return points spread evenly in one lung, away from its surface and fissures, with their lobes."""
    size = np.array([anatomy.half_width + 10, 2 * anatomy.half_depth + 20, anatomy.apex + 160])
    low = np.array([-size[0] if right else 0.0, -anatomy.half_depth - 7, -160.0])
    points = (low + rng.random((_TERMINALS_PER_LUNG * 12, 3)) * size).astype(np.float32)
    thorax = anatomy.thorax(*points.T)
    good = (thorax.lung > 3.5) & (anatomy.fissure_distance(thorax) > 3)
    return points[good].astype(float), anatomy.lobe(thorax, points[:, 0])[good]


def _tree(root: Array, points: Array, rng: np.random.Generator) -> Tubes:
    """Return one tree from ``root`` to all ``points`` (N, 3)."""
    cluster: Array = np.zeros(len(points), int)
    parent = root[None]
    parent_radius = np.array([_radius(len(points))])
    parts = []
    while len(points):
        count = np.bincount(cluster)
        centroid = np.stack([np.bincount(cluster, column) for column in points.T], axis=1) / count[:, None]
        # A branch goes part of the way to the middle of its points, and all the way to a single point.
        reach = np.where(count == 1, 1.0, rng.uniform(0.38, 0.55, len(count)))[:, None]
        node = parent + reach * (centroid - parent)
        radius = _radius(count)
        parts.append(_bent(parent, node, np.minimum(parent_radius, radius * 1.12), radius, rng))
        open_clusters = count > 1
        kept = open_clusters[cluster]
        points, cluster = points[kept], cluster[kept]
        if not len(points):
            break
        points, cluster, origin = _halved(points, cluster, len(count))
        parent, parent_radius = node[origin], radius[origin]
    return Tubes.join(parts)


def _halved(points: Array, cluster: Array, clusters: int) -> tuple[Array, Array, Array]:
    """Split each cluster at the median of its longest axis. Return points, new clusters, and the origin of each."""
    low, high = np.full((clusters, 3), np.inf), np.full((clusters, 3), -np.inf)
    np.minimum.at(low, cluster, points)
    np.maximum.at(high, cluster, points)
    axis = np.argmax(high - low, axis=1)
    order = np.lexsort((points[np.arange(len(points)), axis[cluster]], cluster))
    points, cluster = points[order], cluster[order]
    count = np.bincount(cluster, minlength=clusters)
    rank = np.arange(len(points)) - np.concatenate([[0], np.cumsum(count)])[cluster]
    halves = 2 * cluster + (rank >= count[cluster] // 2)
    used, renumbered = np.unique(halves, return_inverse=True)
    return points, renumbered, used // 2


def _radius(count: Array | int) -> Array:
    return _TERMINAL_RADIUS_MM * np.asarray(count, float) ** _RADIUS_EXPONENT


def _bent(start: Array, end: Array, r0: Array, r1: Array, rng: np.random.Generator) -> Tubes:
    """Return two tubes for each branch, with a slight bend between them."""
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    middle = (start + end) / 2 + rng.normal(0, 0.05, start.shape) * length
    half = (r0 + r1) / 2
    return Tubes(
        np.concatenate([start, middle]),
        np.concatenate([middle, end]),
        np.concatenate([r0, half]),
        np.concatenate([half, r1]),
    )


def _bronchi(arteries: Tubes) -> Tubes:
    """Return lumens beside the larger arteries, with the arteries' diameters."""
    large = arteries.end_radius > _BRONCHUS_FROM_RADIUS_MM
    start, end = arteries.start[large], arteries.end[large]
    r0, r1 = 0.85 * arteries.start_radius[large], 0.85 * arteries.end_radius[large]
    # They lie towards the back and the middle of the body, as airways do beside arteries.
    towards = np.array([0.0, 0.8, 0.6])
    return Tubes(start + 2.3 * r0[:, None] * towards, end + 2.3 * r1[:, None] * towards, r0, r1)
