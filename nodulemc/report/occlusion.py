"""Replacing one part of a nodule's patch, as if the part were not there.

Only voxels denser than lung are replaced; lung itself stays, voxel by voxel. Most parts become like the lung around
them: the mean of the patch's own lung voxels, weighted by their nearness, with equally strong noise. The solid part
becomes ground glass. Parts fade into their surroundings over about a voxel, so no edge is sharper than a scanner's. All
arrays have axes z, y, x and a patch's grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.patch import SIZE, VOXEL_MM, scale_hu

SOLID, RIM, PLEURA, CORE = PARTS = ("solid", "rim", "pleura", "size")
MAP = "map"
WHAT = (*PARTS, MAP)  # that a nodule's explanation may hold
RIM_MM = 6.0  # chosen: spicules are a few millimetres long; what lies farther away does not touch the nodule
CORE_MM = 4.0  # chosen: what is left where the size is taken away, the least that screening reports
CELLS = 7  # along each axis, an odd number, so that the planes through the point run through the middle of cells
GROUND_GLASS_HU, SOLID_HU = -550.0, -300.0  # the latter as the measurements say
_LUNG_HU = (-960.0, -700.0)
_USUAL_LUNG_HU = -850.0
_DENSER_HU = 100.0  # than the lung around: this belongs to a structure
_NEAR_MM = 6.0  # standard deviation of the weight by which lung counts
_FADE_MM = 0.8
_WALL_MM = 3.0  # half the thickness of what is no vessel or spicule any more
_BLUR_MM = 2.5  # beyond a structure's border it still shows
_BESIDE_MM = 2.0  # so near to the nodule there is no lung to learn from
_SEED = 0
Cell = tuple[int, int, int]  # which along z, y, x


@dataclass(frozen=True)
class Occlusion:
    """A patch and its nodule, for replacing parts of it.

    Attributes:
        patch: float32 (64, 64, 64), 0…1.
        mask: bool (64, 64, 64), the nodule. None if it is not known.
    """

    patch: Array
    mask: Array | None = None

    def without(self, part: str) -> Array:
        """Return the patch without one of ``PARTS``, all of which need a mask; float32."""
        if part == SOLID:
            glass = np.float32(_scaled(GROUND_GLASS_HU)) + self._noise
            return self._blended((self._depth > -_BESIDE_MM) & ~self._wall, np.minimum(self.patch, glass))
        return self._blended(self._regions[part] & self._dense, self._lung)

    def without_cell(self, cell: Cell) -> Array | None:
        """Return the patch without the content of one of ``CELLS`` per axis; None if the cell is lung already."""
        inside = np.zeros(self.patch.shape, bool)
        inside[cell_slices(cell)] = True
        inside &= self._dense
        return self._blended(inside, self._lung) if inside.any() else None

    def _blended(self, inside: Array, other: Array) -> Array:
        share = _smoothed(inside, _FADE_MM)
        blended: Array = np.clip(self.patch + share * (other - self.patch), 0, 1)
        return blended

    @cached_property
    def _depth(self) -> Array:
        """Distance in mm into the nodule, below 0 outside."""
        if self.mask is None:
            raise ValueError("no part of a nodule without a mask")
        return _depth(self.mask)

    @cached_property
    def _regions(self) -> dict[str, Array]:
        """Where the parts that become lung are."""
        depth = self._depth
        deepest = np.unravel_index(depth.argmax(), depth.shape)
        away = np.linalg.norm(np.moveaxis(np.indices(depth.shape), 0, -1) - deepest, axis=-1) * VOXEL_MM
        near = depth > -RIM_MM
        return {
            CORE: (depth > -_BESIDE_MM) & (away > CORE_MM / 2) & ~self._wall,
            RIM: near & (depth < -VOXEL_MM) & ~self._wall,
            PLEURA: near & self._wall,
        }

    @cached_property
    def _wall(self) -> Array:
        """What is thick beside the nodule: the chest wall, the heart, the diaphragm."""
        thick = self._even > _scaled(SOLID_HU)
        thick &= self._depth <= 0
        deep = _depth(thick) > _WALL_MM
        return (_depth(deep) > -(_WALL_MM + _BLUR_MM)) & (self._depth <= 0)

    @cached_property
    def _even(self) -> Array:
        """The patch with less noise."""
        return _smoothed(self.patch, _FADE_MM)

    @cached_property
    def _dense(self) -> Array:
        """What is denser than the lung around it, with the blurred edge."""
        denser = self._even - self._level > _scaled(_DENSER_HU) - _scaled(0.0)
        return _depth(denser) > -1.5 * VOXEL_MM

    @cached_property
    def _is_lung(self) -> Array:
        low, high = (_scaled(hu) for hu in _LUNG_HU)
        lung = (self._even > low) & (self._even < high)
        return lung if self.mask is None else lung & (self._depth < -_BESIDE_MM)

    @cached_property
    def _level(self) -> Array:
        """The lung around each voxel; the usual one's weight is small."""
        lung = self._is_lung
        usual = np.median(self.patch[lung]) if lung.any() else _scaled(_USUAL_LUNG_HU)
        weight = _smoothed(lung, _NEAR_MM)
        return (_smoothed(self.patch * lung, _NEAR_MM) + 1e-3 * usual) / (weight + 1e-3)

    @cached_property
    def _noise(self) -> Array:
        """Noise as strong as the lung's, of a texture as interpolation gives it."""
        lung = self._is_lung
        noise = _smoothed(np.random.default_rng(_SEED).standard_normal(self.patch.shape), VOXEL_MM)
        strength = np.std((self.patch - self._level)[lung]) if lung.any() else 0.0
        scaled: Array = (noise * (strength / noise.std())).astype(np.float32)
        return scaled

    @cached_property
    def _lung(self) -> Array:
        return self._level + self._noise


def plane_cells() -> Iterator[Cell]:
    """Return the cells on one of the three planes through a patch's point."""
    middle = CELLS // 2
    axis = range(CELLS)
    return (cell for cell in product(axis, axis, axis) if middle in cell)


def cell_slices(cell: Cell) -> tuple[slice, ...]:
    """Return a cell's voxels in a patch."""
    edges = np.linspace(0, SIZE, CELLS + 1).round().astype(int)
    return tuple(slice(edges[k], edges[k + 1]) for k in cell)


def _scaled(hu: float) -> float:
    return float(scale_hu(np.array(hu, np.float32)))


def _smoothed(field: Array, sigma_mm: float) -> Array:
    image = sitk.GetImageFromArray(field.astype(np.float32))
    return sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma_mm / VOXEL_MM))


def _depth(inside: Array) -> Array:
    """Distance in mm to the border of what is inside, above 0 there."""
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    image.SetSpacing([VOXEL_MM] * 3)
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(distance)
