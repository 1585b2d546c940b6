"""Surroundings for nodules of which only the touched slices are available.

Public sets of cut-out nodules often hold only these slices. A network trained on them would learn their ends, which
reveal the nodule's height and do not exist in use. So the slices are continued by their own content. They are mirrored
at their ends, with the nodule replaced by lung from beside it, and drift sideways, so that vessels run obliquely.
"""

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array

# Readers' outlines leave out the nodule's blurred edge and its spicules.
_MARGIN_MM = 3.0
# The lung that covers the nodule fades out over this distance beyond the margin.
_FEATHER_MM = 1.5
# The width of the rim on which lung from beside the nodule is compared with the nodule's surroundings.
_RING_MM = 2.0
# The steepest drift, in mm sideways per mm along z: vessels of up to 45 degrees.
_STEEPEST = 1.0
# A nodule too large for any piece of lung beside it is covered by several pieces. Smaller pieces are not tried.
_SMALLEST_PIECE = 16
_AIR_TO_BONE = (-1000, 400)
# Lung that covers the nodule contains no more than this share of tissue, if there is such lung.
_TISSUE_HU, _MOST_TISSUE = -500, 0.3


def complete(hu: Array, mask: Array, spacing: Array, low: Array, high: Array, seed: int) -> tuple[Array, Array]:
    """Continue a nodule's slices in all directions.

    Args:
        hu: int16 (D, H, W), the slices that the nodule touches, axes z, y, x.
        mask: uint8, the same shape, 1 on the nodule.
        spacing: mm per voxel along z, y, x.
        low: (3,), the number of voxels to add before the slices along z, y, x.
        high: (3,), the number of voxels to add after them.
        seed: The seed of the drift's directions.

    Returns:
        HU and mask, int16 and uint8, (D, H, W) plus ``low`` plus ``high``. The given slices are unchanged in the
            middle.
    """
    pads = [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    full = np.pad(without_nodule(hu, mask, spacing), pads, mode="symmetric")
    random = np.random.default_rng(seed)
    (before, after), end = pads[0], len(full)
    for added in (range(before - 1, -1, -1), range(end - after, end)):  # away from the given slices
        drift = _drift(random)
        for k, z in enumerate(added, start=1):
            full[z] = _moved(full[z], drift * k * spacing[0] / spacing[1:])
    core = tuple(slice(a, a + n) for (a, _), n in zip(pads, hu.shape, strict=True))
    full[core] = hu
    return full, np.pad(mask, pads)


def without_nodule(hu: Array, mask: Array, spacing: Array) -> Array:
    """Return the slices with the nodule covered by lung from beside it.

    The covered place is the nodule's outline and 3 mm more, in all slices. Args as ``complete``.

    Returns:
        int16 (D, H, W). It is unchanged if there is no nodule, or nothing beside it.
    """
    distance = _distance(np.any(mask, axis=0), spacing)
    footprint = distance <= _MARGIN_MM + _FEATHER_MM
    if footprint.all() or not footprint.any():
        return hu.copy()
    source_y, source_x = np.indices(footprint.shape)
    clipped = np.clip(hu, *_AIR_TO_BONE).astype(np.float32)
    for piece, (dy, dx) in _pieces(clipped, footprint, footprint, spacing):
        source_y[piece] += dy
        source_x[piece] += dx
    beside = hu[:, source_y.clip(0, footprint.shape[0] - 1), source_x.clip(0, footprint.shape[1] - 1)]
    cover = np.clip(1 - (distance - _MARGIN_MM) / _FEATHER_MM, 0, 1)
    return np.rint(hu * (1 - cover) + beside * cover).astype(np.int16)


def _pieces(hu: Array, footprint: Array, piece: Array, spacing: Array) -> Iterator[tuple[Array, tuple[int, int]]]:
    """Cover a piece of the footprint. Yield pieces, each with the (y, x) shift to its cover."""
    shift = _best_shift(hu, footprint, piece, spacing)
    if shift is not None:
        yield piece, shift
        return
    y, x = np.nonzero(piece)
    if len(y) < _SMALLEST_PIECE:
        yield piece, _nearest_outside(footprint, y, x)
        return
    rows, columns = np.indices(piece.shape)
    halves = rows <= np.median(y) if np.ptp(y) >= np.ptp(x) else columns <= np.median(x)
    for half in (piece & halves, piece & ~halves):
        if half.any():
            yield from _pieces(hu, footprint, half, spacing)


def _best_shift(hu: Array, footprint: Array, piece: Array, spacing: Array) -> tuple[int, int] | None:
    """Return the shift to lung outside the footprint, of the piece's form, with the rim most like the piece's own."""
    y, x = np.nonzero(piece)
    ring = (_distance(piece, spacing) <= _RING_MM) & ~footprint
    ring_y, ring_x = np.nonzero(ring)
    height, width = piece.shape
    tissue = (hu > _TISSUE_HU).mean(axis=0)
    shifts = [
        (dy, dx)
        for dy in range(-y.min(), height - y.max())
        for dx in range(-x.min(), width - x.max())
        if not footprint[y + dy, x + dx].any() and tissue[y + dy, x + dx].mean() <= _MOST_TISSUE
    ]
    if not shifts:
        return None
    own = hu[:, ring_y, ring_x]

    def mismatch(shift: tuple[int, int]) -> float:
        there = np.clip(ring_y + shift[0], 0, height - 1), np.clip(ring_x + shift[1], 0, width - 1)
        return float(np.abs(hu[:, there[0], there[1]] - own).mean()) if len(ring_y) else np.hypot(*shift)

    return min(shifts, key=mismatch)


def _nearest_outside(footprint: Array, y: Array, x: Array) -> tuple[int, int]:
    """Return the shift from a piece's middle to the nearest place outside the footprint."""
    free_y, free_x = np.nonzero(~footprint)
    nearest = np.argmin((free_y - y.mean()) ** 2 + (free_x - x.mean()) ** 2)
    return int(free_y[nearest] - y.mean()), int(free_x[nearest] - x.mean())


def _distance(region: Array, spacing: Array) -> Array:
    """Return the distance (H, W) in mm from a region (H, W), 0 within; infinite if the region is empty."""
    if not region.any():
        return np.full(region.shape, np.inf)
    image = sitk.GetImageFromArray(region.astype(np.uint8))
    image.SetSpacing(spacing[:0:-1].tolist())
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    outside: Array = np.maximum(sitk.GetArrayFromImage(distance), 0)
    return outside


def _drift(random: np.random.Generator) -> Array:
    """Return mm (2,) along y and x per mm along z, uniformly distributed over a disc."""
    angle = random.uniform(0, 2 * np.pi)
    drift: Array = np.array([np.sin(angle), np.cos(angle)]) * _STEEPEST * np.sqrt(random.uniform())
    return drift


def _moved(image: Array, shift: Array) -> Array:
    """Return the image (H, W) moved by whole voxels, mirrored at its ends."""
    dy, dx = np.rint(shift).astype(int)
    pad = ((max(dy, 0), max(-dy, 0)), (max(dx, 0), max(-dx, 0)))
    padded = np.pad(image, pad, mode="symmetric")
    return padded[pad[0][1] :, pad[1][1] :][: image.shape[0], : image.shape[1]]
