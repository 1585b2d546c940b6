"""The scanner: voxel spacing, slice thickness, blur and correlated noise of low-dose screening CT.

Ranges follow the NLST protocol (National Lung Screening Trial Research Team, Radiology 2011;258:243-253: slices of
1.0-2.5 mm, low dose, soft or sharp kernel) and its nodules' in-plane spacings of 0.5-0.9 mm (NLSTx, Veasey et al., ISBI
2020:1870-1874). The full width at half maximum of a slice's sensitivity profile is the nominal thickness.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nodulemc.arrays import Array

IN_PLANE_VOXELS = 512
_FWHM = 2.3548
# The size of a tile of noise. Eight by eight tiles hold a slice of 512 x 512 with the filter's margin around it.
_TILE = (16, 65, 65)
_BEFORE = 4
# (slice spacing, slice thickness) in mm with their frequency.
_SLICES = (
    ((1.0, 1.0), 0.15),
    ((1.25, 1.25), 0.15),
    ((1.25, 2.5), 0.1),
    ((1.8, 2.0), 0.2),
    ((2.0, 2.0), 0.2),
    ((2.5, 2.5), 0.2),
)


@dataclass(frozen=True)
class NoiseFilter:
    """A separable symmetric filter that gives white noise its texture. It holds one half, from the centre outwards."""

    in_plane: tuple[float, ...]
    along_z: tuple[float, ...]


@dataclass(frozen=True)
class Scanner:
    """The imaging of one scan.

    Attributes:
        spacing: x, y, z in mm.
        thickness: The nominal slice thickness in mm.
        blur: The standard deviations in mm of the point spread function along the voxel axes x, y, z.
        noise_hu: The standard deviation of noise at the centre of the body.
        noise_filter: The texture of the noise.
    """

    spacing: tuple[float, float, float]
    thickness: float
    blur: tuple[float, float, float]
    noise_hu: float
    noise_filter: NoiseFilter


def sample_scanner(rng: np.random.Generator, lung_width: float) -> Scanner:
    """Draw a screening protocol whose field of view holds lungs of this width (mm)."""
    field = lung_width + rng.uniform(25, 110)
    in_plane = float(np.round(np.clip(field / IN_PLANE_VOXELS, 0.55, 0.85), 4))
    (step, thickness), _ = _SLICES[rng.choice(len(_SLICES), p=[frequency for _, frequency in _SLICES])]
    sharp = rng.random() < 0.3
    blur = rng.uniform(0.9, 1.1) if sharp else rng.uniform(1.25, 1.6)
    # Thinner slices and sharper kernels are noisier.
    noise = rng.uniform(20, 34) * (1.5 if sharp else 1.0) * np.sqrt(2.0 / max(thickness, 1.0)) ** 0.5
    return Scanner(
        spacing=(in_plane, in_plane, step),
        thickness=thickness,
        blur=(blur / _FWHM, blur / _FWHM, thickness / _FWHM),
        noise_hu=float(np.clip(noise, 20.0, 60.0)),
        noise_filter=NoiseFilter(
            in_plane=_unit_taps(_in_plane_taps(blur / _FWHM / in_plane)),
            along_z=_unit_taps((1.0, 0.5 * float(np.clip(thickness / step - 0.6, 0.1, 1.0)))),
        ),
    )


def correlation_taps(lag_one: float) -> tuple[float, ...]:
    """Return the half filter (centre, neighbour) whose output has this correlation between neighbours, at most 2/3."""
    # For taps (t, 1, t): correlation 2t / (1 + 2t²).
    lag_one = float(np.clip(lag_one, -0.6, 0.66))
    t = 0.0 if abs(lag_one) < 1e-6 else (1 - np.sqrt(1 - 2 * lag_one**2)) / (2 * lag_one)
    return _unit_taps((1.0, float(t)))


def noise(key: tuple[int, ...], texture: NoiseFilter, lower: Array, upper: Array) -> Array:
    """Return unit-variance noise of the voxels ``lower`` ≤ index < ``upper`` (x, y, z) of a scan.

    Args:
        key: The scan's own seed. The same key gives the same noise, for any division of the scan into parts.
        texture: The filter of the noise.
        lower: The first index.
        upper: The index after the last one.

    Returns:
        float32 array (z, y, x).
    """
    margin = np.array([len(texture.along_z) - 1] + [len(texture.in_plane) - 1] * 2)
    white = white_noise(key, np.asarray(lower)[::-1] - margin, np.asarray(upper)[::-1] + margin)
    out = np.empty((np.asarray(upper) - lower)[::-1], np.float32)
    for k in range(len(out)):  # slice by slice, as a slice fits the processor's cache
        plane = _filtered(white[k : k + 2 * margin[0] + 1], texture.along_z, 0)
        plane = _filtered(plane, texture.in_plane, 1)
        out[k] = _filtered(plane, texture.in_plane, 2)[0]
    return out


def white_noise(key: tuple[int, ...], lower: Array, upper: Array) -> Array:
    """Return standard normal noise on a box of integer positions (z, y, x), the same for any division into boxes."""
    out = np.empty(upper - lower, np.float32)
    first, last = (lower + _BEFORE) // _TILE, (upper - 1 + _BEFORE) // _TILE
    for offset in np.ndindex(*(last - first + 1)):
        tile = first + offset
        start = tile * _TILE - _BEFORE
        low, high = np.maximum(lower, start), np.minimum(upper, start + _TILE)
        target = tuple(map(slice, low - lower, high - lower))
        out[target] = _tile(key, *tile.tolist())[tuple(map(slice, low - start, high - start))]
    return out


@lru_cache(maxsize=160)  # two layers of a scan, so that its next slab finds the shared tiles
def _tile(key: tuple[int, ...], *position: int) -> Array:
    # Positions may be negative; seeds are natural numbers.
    seed = np.random.SeedSequence(key[0], spawn_key=(*key[1:], *(2**16 + p for p in position)))
    return np.random.Generator(np.random.SFC64(seed)).standard_normal(_TILE, np.float32)


def _filtered(array: Array, taps: tuple[float, ...], axis: int) -> Array:
    """Correlate along an axis with a symmetric filter, keeping the valid part."""
    reach = len(taps) - 1
    size = array.shape[axis] - 2 * reach
    part = [slice(None)] * 3

    def shifted(by: int) -> Array:
        part[axis] = slice(reach + by, reach + by + size)
        return array[tuple(part)]

    out = shifted(0) * np.float32(taps[0])
    for step, tap in enumerate(taps[1:], start=1):
        pair = shifted(-step) + shifted(step)
        pair *= np.float32(tap)
        out += pair
    return out


def _in_plane_taps(sigma: float) -> tuple[float, ...]:
    """Return the kernel's blur minus a share of a wider blur, as filtered back projection dampens slow noise."""
    k = np.arange(3)
    narrow, wide = (np.exp(-0.5 * (k / s) ** 2) / s for s in (0.75 * sigma, 1.9 * sigma))
    return tuple((narrow - 0.45 * wide).tolist())


def _unit_taps(taps: tuple[float, ...]) -> tuple[float, ...]:
    """Scale the taps so that white noise keeps unit variance."""
    norm = np.sqrt(taps[0] ** 2 + 2 * sum(t**2 for t in taps[1:]))
    return tuple(float(t / norm) for t in taps)
