"""Cutting blocks around nodules out of their scans, or adopting the challenge's blocks."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.folder import CtFolder, CtPlace
from nodulemc.ct.grids import read_grid
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.data.block_store import BLOCK_MM, UNKNOWN_BOUNDS, NoduleBlock
from nodulemc.data.luna25_blocks import block_grid, image_path, map_array
from nodulemc.data.nodule_masks import REACH_MM, MaskFile
from nodulemc.data.nodule_table import Row, point_of
from nodulemc.data.surroundings import complete
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Sample:
    """A nodule's row, its mask, and the place of its image. The place is None if it must be looked up."""

    row: Row
    mask: MaskFile
    place: CtPlace | None = None


@dataclass(frozen=True)
class Excluded:
    """A nodule that cannot be trained on, with the reason."""

    annotation_id: str
    reason: str


class VoxelSource(Protocol):
    """A source of nodules' voxels.

    Attributes:
        whole_scans: Whether its images are whole scans, not parts of them.
    """

    whole_scans: bool

    def place(self, row: Row) -> CtPlace:
        """Return the place of the nodule's voxels.

        Raises:
            ImageError: the voxels exist twice.
        """

    def grid(self, row: Row) -> Grid:
        """Return the grid of the nodule's image, from its header.

        Raises:
            ImageError: the image is missing or damaged.
        """

    def cut(self, samples: Sequence[Sample]) -> list[NoduleBlock | Excluded]:
        """Return the blocks of nodules that are in one image.

        Raises:
            ImageError: the image or a mask is damaged.
        """


class ScanSource:
    """A folder of CTs, see ``nodulemc.ct.folder``. Each CT is read once for all its nodules."""

    whole_scans = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cts = CtFolder(folder)
        self._grids: dict[CtPlace, Grid] = {}  # a series has hundreds of headers

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def place(self, row: Row) -> CtPlace:
        """See ``VoxelSource``."""
        return self._cts.find(row["SeriesInstanceUID"])

    def grid(self, row: Row) -> Grid:
        """See ``VoxelSource``."""
        place = self.place(row)
        if place not in self._grids:
            self._grids[place] = read_grid(place.path, place.series)
        return self._grids[place]

    def cut(self, samples: Sequence[Sample]) -> list[NoduleBlock | Excluded]:
        """See ``VoxelSource``."""
        place = samples[0].place or self.place(samples[0].row)
        volume = read_volume(place.path, series=place.series)
        numbers: dict[Path, Array] = {}
        results = []
        for sample in samples:
            if sample.mask.path not in numbers:  # a scan's mask serves all its nodules
                numbers = {sample.mask.path: sample.mask.read()}
            results.append(_cut_out(volume, sample, numbers[sample.mask.path]))
        return results


@dataclass(frozen=True)
class ChallengeBlockSource:
    """A folder of the challenge's own nodule blocks, which are used as they are.

    The extent of their scans is not known. The challenge's padding of -1024 HU represents everything beyond.
    """

    folder: Path
    whole_scans = False

    def place(self, row: Row) -> CtPlace:
        """See ``VoxelSource``."""
        return CtPlace(image_path(self.folder, row["AnnotationID"]))

    def grid(self, row: Row) -> Grid:
        """See ``VoxelSource``."""
        return block_grid(self.folder, row["AnnotationID"])

    def cut(self, samples: Sequence[Sample]) -> list[NoduleBlock | Excluded]:
        """See ``VoxelSource``."""
        results = []
        for sample in samples:
            grid, path = self.grid(sample.row), self.place(sample.row).path
            mask = sample.mask.cut(sample.mask.read(), grid, (0, 0, 0), point_of(sample.row))
            results.append(_block(_to_int16(map_array(path), path), mask, grid, UNKNOWN_BOUNDS, sample))
        return results


class SlabSource(ScanSource):
    """Images that show only the slices that a nodule touches. Each block continues its image to the full size."""

    whole_scans = False

    def cut(self, samples: Sequence[Sample]) -> list[NoduleBlock | Excluded]:
        """See ``VoxelSource``."""
        return [self._continued(sample) for sample in samples]

    def _continued(self, sample: Sample) -> NoduleBlock | Excluded:
        place = sample.place or self.place(sample.row)
        volume = read_volume(place.path, series=place.series)
        grid, point = Grid.of(volume.image), np.array(point_of(sample.row))
        mask = sample.mask.cut(sample.mask.read(), grid, (0, 0, 0), point)
        hu = _to_int16(sitk.GetArrayViewFromImage(volume.image), volume.source)
        index, reach = grid.to_index(point), BLOCK_MM / 2 / np.array(grid.spacing)
        low = np.maximum(np.ceil(reach - index - 0.5), 0).astype(int)
        high = np.maximum(np.ceil(index + reach - np.array(grid.size) + 0.5), 0).astype(int)
        seed = zlib.crc32(sample.row["AnnotationID"].encode())
        hu, mask = complete(hu, mask, np.array(grid.spacing[::-1]), low[::-1], high[::-1], seed)
        return _block(hu, mask, grid.crop(-low, high + grid.size), UNKNOWN_BOUNDS, sample)


def _cut_out(volume: Volume, sample: Sample, numbers: Array) -> NoduleBlock | Excluded:
    """Cut a box of BLOCK_MM along the scan's axes, but not beyond the scan."""
    scan = Grid.of(volume.image)
    point = np.array(point_of(sample.row))
    along = (scan.matrix / scan.spacing).T * (BLOCK_MM / 2)
    part = volume.crop(np.concatenate([point - along, point + along]))
    if part is None:
        raise ImageError("the CT does not contain the nodule's point", volume.source, "check the coordinates")
    grid = Grid.of(part)
    lower = np.array(scan.offset_of(grid))
    mask = sample.mask.cut(numbers, grid, lower, point)
    scan_bounds = (-0.5 - lower, np.array(scan.size) - 0.5 - lower)
    return _block(_to_int16(sitk.GetArrayViewFromImage(part), volume.source), mask, grid, scan_bounds, sample)


def _block(
    voxels: Array, mask: Array, grid: Grid, scan_bounds: tuple[Array, Array], sample: Sample
) -> NoduleBlock | Excluded:
    if not mask.any():
        what = f"{sample.mask.path.name} has no voxel of it within {REACH_MM:g} mm of its point"
        return Excluded(sample.row["AnnotationID"], what)
    return NoduleBlock.on(grid, voxels, mask, scan_bounds, sample.row)


def _to_int16(hu: Array, source: Path) -> Array:
    """Convert HU of any type to int16. They are rounded, and clipped to its limits, far beyond the network's range."""
    if not np.isfinite(hu).all():
        raise ImageError("voxels are NaN or infinite", source, "write the CT in Hounsfield units")
    return np.clip(np.rint(hu), _INT16.min, _INT16.max).astype(np.int16)
