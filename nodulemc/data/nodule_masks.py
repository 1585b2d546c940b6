"""Finding nodule masks, checking them against their image, and cutting them to a block.

A folder of masks holds one of these for each nodule:

- ``<AnnotationID>.mha`` (``.nii.gz``, ``.nii``) on the image's grid or on a part of it. Every non-zero voxel is nodule.
- ``<AnnotationID>.npy`` with the image's shape.
- ``image/<AnnotationID>.npy``, as in the challenge's blocks, with the image's shape or with its own geometry in
  ``metadata/<AnnotationID>.npy``.
- ``<SeriesInstanceUID>.nii.gz`` (``.mha``, ``.nii``) for all nodules of a scan, with one number per nodule, as in the
  public LUNA25-MedSAM2 masks (https://huggingface.co/datasets/wanglab/LUNA25-MedSAM2).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.grids import read_grid
from nodulemc.ct.volume import read_volume
from nodulemc.data.luna25_blocks import block_grid, image_path, map_array, metadata_path
from nodulemc.data.nodule_table import Row
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid, in_words, size_of

_SUFFIXES = (".mha", ".nii.gz", ".nii", ".npy")
# In a scan's mask, a nodule is the number nearest to its point. Numbers farther away than this are other nodules.
REACH_MM = 5.0


@dataclass(frozen=True)
class MaskFile:
    """A mask that fits its image.

    Attributes:
        path: The file.
        offset: The index x, y, z in the image of the mask's first voxel.
        of_scan: Whether it holds one number per nodule, not only this nodule.
    """

    path: Path
    offset: tuple[int, int, int]
    of_scan: bool

    def read(self) -> Array:
        """Return the mask's numbers, axes z, y, x.

        Raises:
            ImageError: the file is damaged.
        """
        if _is_array(self.path):
            return map_array(self.path)
        numbers: Array = sitk.GetArrayFromImage(read_volume(self.path).image)
        return numbers

    def cut(self, numbers: Array, part: Grid, lower: Sequence[int] | Array, point: Sequence[float] | Array) -> Array:
        """Return the nodule on a part of the image.

        Args:
            numbers: The result of ``read``.
            part: The part's grid.
            lower: The index x, y, z in the image of the part's first voxel.
            point: The nodule's world point x, y, z in mm (LPS).

        Returns:
            uint8 of the part's shape, axes z, y, x, 1 on the nodule. It is 0 everywhere if the mask is empty within
                ``REACH_MM`` of the point.
        """
        numbers = _on_part(numbers, np.array(lower) - self.offset, part.size)
        filled = np.argwhere(numbers)
        away = np.linalg.norm((filled[:, ::-1] - part.to_index(point)) @ part.matrix.T, axis=1)
        if not (away <= REACH_MM).any():
            return np.zeros(numbers.shape, np.uint8)
        own: Array = numbers == numbers[tuple(filled[away.argmin()])] if self.of_scan else numbers != 0
        return own.astype(np.uint8)


class MaskFolder:
    """The masks in a folder."""

    def __init__(self, folder: Path) -> None:
        """List a folder.

        Raises:
            ImageError: it does not exist.
        """
        if not folder.is_dir():
            raise ImageError("no such folder of masks", folder, "check the path")
        self.folder = folder
        self._files: dict[str, list[Path]] = defaultdict(list)
        for inside in (folder, folder / "image"):
            for path in sorted(inside.iterdir()) if inside.is_dir() else ():
                if (name := _subject(path)) is not None:
                    self._files[name].append(path)

    def find(self, row: Row) -> Path | None:
        """Return a nodule's mask, or its scan's mask. None if there is neither.

        Raises:
            ImageError: there are several.
        """
        paths = self._files.get(row["AnnotationID"]) or self._files.get(row["SeriesInstanceUID"]) or []
        if len(paths) > 1:
            raise ImageError(f"{len(paths)} masks for one name", paths[0], f"keep one of it and {paths[1]}")
        return paths[0] if paths else None

    def fit(self, path: Path, row: Row, image: Grid, *, whole_scan: bool) -> MaskFile:
        """Check a mask against its image.

        Args:
            path: The result of ``find`` for the row.
            row: The nodule's row.
            image: The grid of the nodule's scan, or of its block.
            whole_scan: Whether the image is a whole scan, beyond which there can be no mask.

        Raises:
            ImageError: the mask has neither the image's shape nor a geometry that places it on the image's voxels.
        """
        annotation_id = row["AnnotationID"]
        if not _is_array(path):
            mask = read_grid(path)
        elif path == image_path(self.folder, annotation_id) and metadata_path(self.folder, annotation_id).is_file():
            mask = block_grid(self.folder, annotation_id)
            whole_scan = False  # the challenge's blocks may reach beyond their scan
        else:
            mask = replace(image, size=size_of(map_array(path)))
            if mask.size != image.size:
                raise _misfit(mask, image, path, "has no geometry and another shape than its image")
        offset = image.offset_of(mask)
        if offset is None:
            raise _misfit(mask, image, path, "does not lie on the voxels of its image")
        if whole_scan and ((np.array(offset) < 0).any() or (np.add(offset, mask.size) > image.size).any()):
            raise _misfit(mask, image, path, "reaches beyond its scan")
        return MaskFile(path, offset, of_scan=_subject(path) != annotation_id)


def _subject(path: Path) -> str | None:
    """Return the nodule or scan that a mask is named after. None for other files."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), None)
    return None if suffix is None else path.name[: -len(suffix)]


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _misfit(mask: Grid, image: Grid, path: Path, fault: str) -> ImageError:
    return ImageError(
        f"the mask of {in_words(mask.size)} voxels {fault} of {in_words(image.size)} voxels",
        path,
        "write the mask on the grid of its CT, or on a part of it with its own geometry",
    )


def _on_part(numbers: Array, start: Array, size: Sequence[int]) -> Array:
    """Return the voxels ``start`` ≤ index < ``start + size`` (x, y, z) of an array (z, y, x), 0 outside it."""
    start, shape = start[::-1], np.array(size)[::-1]
    out = np.zeros(shape, numbers.dtype)
    low, high = np.clip(start, 0, numbers.shape), np.clip(start + shape, 0, numbers.shape)
    out[tuple(map(slice, low - start, high - start))] = numbers[tuple(map(slice, low, high))]
    return out
