"""A drawn chest, half of one, on any grid and after any motion: its HU are a function of the place.

Lung (-900 HU) within soft tissue, branching tubes as vessels, and balls (300 HU) as nodules, all with edges of a voxel.
A threshold of one half of the network's input, -300 HU, meets the balls' true surface.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.ct.volume import Volume

LUNG, TISSUE, NODULE = -900.0, 20.0, 300.0
EXTENT_MM = np.array([120.0, 110.0, 130.0])
CENTRE = np.array([11.0, -7.0, 40.0])


def draw_chest(
    balls=(), *, seed=0, motion=None, spacing=(1.6, 1.6, 2.0), direction=None, noise=20.0, lung=LUNG, edge_mm=None
) -> Volume:
    """A scan of the chest.

    Args:
        balls: (centre x, y, z in the resting chest, diameter in mm) of each nodule.
        seed: of the patient's vessels.
        motion: takes the resting chest's points to where they lie in this scan.
        spacing, direction: the grid's.
        noise: standard deviation in HU.
        lung: HU of the lung.
        edge_mm: width of all edges; None: a voxel.
    """
    motion, balls = motion or sitk.Euler3DTransform(), list(balls)
    direction = np.eye(3) if direction is None else direction
    size = np.ceil(EXTENT_MM / spacing).astype(int)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1) - (size - 1) / 2
    offsets = index * spacing @ direction.T
    origin = np.array(motion.TransformPoint(CENTRE.tolist())) + direction @ (-(size - 1) / 2 * spacing)
    turn = np.array(motion.GetMatrix()).reshape(3, 3)
    hu = _hu(
        CENTRE + offsets @ turn, balls, seed, edge_mm or np.mean(spacing), lung
    )  # turned back by the inverse, from the right
    hu += noise * np.random.default_rng(seed + sum(size)).standard_normal(hu.shape)
    image = sitk.GetImageFromArray(hu.transpose(2, 1, 0).round().astype(np.int16))
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin.tolist())
    return Volume(image, Path("ct.mha"))


def _hu(places, balls, seed, edge_mm, lung):
    depth = (1 - np.linalg.norm((places - CENTRE) / (52, 46, 80), axis=-1)) * 46
    hu = TISSUE + _share(depth, edge_mm) * (lung - TISSUE)
    axes = [np.ascontiguousarray(axis).ravel() for axis in np.moveaxis(places, -1, 0)]
    if lung < -500:
        for start, end, radius in _vessels(seed):
            _add(hu.ravel(), axes, start, end, radius, TISSUE, edge_mm)
    for centre, diameter in balls:
        _add(hu.ravel(), axes, centre, centre, diameter / 2, NODULE, edge_mm)
    return hu


def _add(hu, axes, start, end, radius, value, edge_mm):
    """Draw a tube with round ends, or a ball where both ends are one."""
    near = slice(None)
    for axis, low, high in zip(axes, np.minimum(start, end), np.maximum(start, end), strict=True):
        part = axis[near]
        inside = (part > low - radius - edge_mm) & (part < high + radius + edge_mm)
        near = np.flatnonzero(inside) if isinstance(near, slice) else near[inside]
    places = np.stack([axis[near] for axis in axes], axis=-1)
    hu[near] += _share(radius - _away(places, start, end), edge_mm) * (value - hu[near])


def _share(inwards_mm, edge_mm):
    return np.clip(inwards_mm / edge_mm + 0.5, 0, 1)


def _vessels(seed):
    """Tubes from the middle outwards, each from the end of an earlier one."""
    rng = np.random.default_rng(seed)
    ends = [CENTRE + (-40, 0, 0)]
    for k in range(45):
        start = ends[rng.integers(max(0, k // 3), len(ends))]
        end = CENTRE + np.clip(start + rng.normal(size=3) * 22 + (8, 0, 0) - CENTRE, (-48, -42, -60), (48, 42, 60))
        ends.append(end)
        yield start, end, rng.uniform(1.0, 2.5)


def _away(places, start, end):
    along = end - start
    share = np.clip((places - start) @ along / max(along @ along, 1e-9), 0, 1)
    return np.linalg.norm(places - start - share[..., None] * along, axis=-1)


def rigid(turns_deg=(4.0, -6.0, 8.0), shift=(20.0, -35.0, 90.0)) -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform(CENTRE.tolist(), *np.radians(turns_deg).tolist(), list(shift))
