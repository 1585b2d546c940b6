"""Pictures of a CT around a nodule: slices of the scan's own voxels, nothing interpolated, as 8-bit PNG.

Planes run along the scan's grid, each named after the body's axis that it is nearest to, and are turned as radiologists
hang them: axial seen from the feet, coronal from the front, sagittal from the patient's left, the head up.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from PIL import Image

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import NoduleMask, nodule_box
from nodulemc.patch import EXTENT_MM, VOXEL_MM, patch_origin
from nodulemc.points.nodules import Nodule

PLANES = ("axial", "coronal", "sagittal")
MOST_PIXELS = 400_000  # for a nodule's axial slices; five nodules stay below 3 MB
OVERVIEW_PIXELS = 256
LEAST_CHANGE = 0.02  # of a probability; smaller changes get no full colour
_RAISES, _LOWERS = (255, 140, 0), (60, 150, 255)
_MOST_COLOUR = 0.7
_AIR_HU = -1024.0
_ORIENTATION = "LPS"  # for arrays turned for pictures: z from the feet up, y from front to back, x from right to left


@dataclass(frozen=True)
class Window:
    """A grey scale: black at ``level`` − ``width``/2 HU and below, white at ``level`` + ``width``/2 and above."""

    name: str
    level: float
    width: float

    def grey(self, hu: Array) -> Array:
        """Map HU of any shape to uint8; NaN is shown as air."""
        shown = np.nan_to_num(np.asarray(hu, np.float32), nan=_AIR_HU)
        return np.clip((shown - (self.level - self.width / 2)) * (255 / self.width), 0, 255).round().astype(np.uint8)


WINDOWS = {"lung": Window("Lung", -600, 1500), "soft": Window("Soft tissue", 40, 400)}


@dataclass(frozen=True)
class Picture:
    """The picture of one plane.

    Attributes:
        slices: PNGs in base64 by window, each a list of one or several slices.
        size: Columns and rows.
        extent_mm: Width and height.
    """

    slices: dict[str, list[str]]
    size: tuple[int, int]
    extent_mm: tuple[float, float]


@dataclass(frozen=True)
class Overview:
    """The axial slice of the whole scan at a nodule.

    Attributes:
        picture: A small picture of it, in the lung window.
        box: Left, top, width and height of the nodule's axial picture in it, in per cent.
        number: Which slice it is, counted from the feet from 1.
        count: The number of slices.
    """

    picture: Picture
    box: tuple[float, float, float, float]
    number: int
    count: int


@dataclass(frozen=True)
class View:
    """The pictures of a scan at one nodule.

    Attributes:
        part: The scan's voxels in the nodule's cube, unchanged, with their place.
        lower: The index x, y, z of the part's first voxel in the scan.
        shown: The slices of the turned part, axes z, y, x, that the pictures show, all around the point.
        centre: The index z, y, x of the point's voxel in the shown part.
        levels: The indices of the axial slices in the shown part, from the feet up, including the point's.
        step: The distance of the levels: 1 for every slice, 2 for every second.
        planes: The pictures by the planes' names. The axial one has all levels.
        overview: The nodule's place in the scan.
    """

    part: sitk.Image
    lower: tuple[int, int, int]
    shown: tuple[slice, slice, slice]
    centre: tuple[int, int, int]
    levels: tuple[int, ...]
    step: int
    planes: dict[str, Picture]
    overview: Overview

    def mask_planes(self, mask: NoduleMask) -> dict[str, list[Array]]:
        """Return a mask's probability on each picture's slices (rows, columns), by the planes' names.

        It is 0 outside the mask's box.

        Args:
            mask: The nodule's mask, on the scan's grid. It lies in the part.
        """
        whole = np.zeros(self.part.GetSize()[::-1], np.float32)
        start = np.subtract(mask.lower, self.lower)[::-1]
        whole[tuple(slice(a, a + n) for a, n in zip(start, mask.probability.shape, strict=True))] = mask.probability
        image = sitk.GetImageFromArray(whole)
        image.CopyInformation(self.part)
        return _planes(sitk.GetArrayFromImage(_turn(image))[self.shown], self.centre, self.levels)

    def change_planes(self, changes: Array, point: Sequence[float]) -> dict[str, str]:
        """Return PNGs in base64 of the planes through the point in the lung window, coloured by a field.

        Args:
            changes: float (64, 64, 64), axes z, y, x, on the patch's grid: orange above 0, blue below, stronger farther
                from 0.
            point: The nodule's point x, y, z in mm (LPS).
        """
        patch = sitk.GetImageFromArray(changes)
        patch.SetSpacing([VOXEL_MM] * 3)
        patch.SetOrigin(patch_origin(point))
        on_part = sitk.Resample(patch, self.part, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, sitk.sitkFloat32)
        strongest = max(float(abs(changes).max()), LEAST_CHANGE)
        hu, change = (
            _planes(sitk.GetArrayFromImage(_turn(image))[self.shown], self.centre, self.centre[:1])
            for image in (self.part, on_part)
        )
        grey = WINDOWS["lung"].grey
        return {name: _png(_coloured(grey(hu[name][0]), change[name][0] / strongest)) for name in PLANES}

    def on_scan(self, mask: NoduleMask) -> NoduleMask:
        """Return a mask on the part's grid, moved to the scan's."""
        x, y, z = (int(a + b) for a, b in zip(mask.lower, self.lower, strict=True))
        return replace(mask, lower=(x, y, z))


def look_at_nodule(volume: Volume, nodule: Nodule) -> View:
    """Cut out and draw the pictures at a nodule.

    Args:
        volume: The CT.
        nodule: A nodule with its point in the CT.
    """
    image = volume.image
    reach = EXTENT_MM / 2
    lower, upper = nodule_box(volume, nodule.point)
    part = image[tuple(map(slice, lower, upper))]
    turned = _turn(part)
    index = turned.TransformPhysicalPointToIndex([float(c) for c in nodule.point])
    at = np.clip(index, 0, np.subtract(turned.GetSize(), 1)).tolist()[::-1]
    spacing, size = turned.GetSpacing()[::-1], turned.GetSize()[::-1]
    half = [max(1, int(reach / mm)) for mm in spacing]
    z, y, x = (slice(max(a - h, 0), min(a + h + 1, n)) for a, h, n in zip(at, half, size, strict=True))
    shown = z, y, x
    centre = at[0] - z.start, at[1] - y.start, at[2] - x.start
    hu = sitk.GetArrayViewFromImage(turned)[shown]
    step = math.ceil(hu.size / MOST_PIXELS)
    levels = tuple(range(centre[0] % step, len(hu), step))
    pixels = {"axial": spacing[1:], "coronal": (spacing[0], spacing[2]), "sagittal": spacing[:2]}
    planes = {name: _picture(found, pixels[name]) for name, found in _planes(hu, centre, levels).items()}
    overview = _overview(volume, nodule.point, turned, shown)
    return View(part, (lower[0], lower[1], lower[2]), shown, centre, levels, step, planes, overview)


def _turn(image: sitk.Image) -> sitk.Image:
    turned: sitk.Image = sitk.DICOMOrient(image, _ORIENTATION)
    return turned


def _planes(field: Array, centre: tuple[int, int, int], levels: Sequence[int]) -> dict[str, list[Array]]:
    """Return slices (rows, columns) of a turned array, axes z, y, x, as radiologists hang them."""
    _, y, x = centre
    return {"axial": [field[z] for z in levels], "coronal": [field[::-1, y]], "sagittal": [field[::-1, :, x]]}


def _picture(slices: Sequence[Array], pixel_mm: tuple[float, float]) -> Picture:
    rows, columns = slices[0].shape
    extent = (columns * pixel_mm[1], rows * pixel_mm[0])
    drawn = {name: [_png(window.grey(hu)) for hu in slices] for name, window in WINDOWS.items()}
    return Picture(drawn, (columns, rows), extent)


def _overview(
    volume: Volume, point: Sequence[float], turned: sitk.Image, shown: tuple[slice, slice, slice]
) -> Overview:
    """Return the scan's slice through a point.

    ``turned`` and ``shown`` are those of the part, whose voxels keep their places.
    """
    image = volume.image
    across = int(np.argmax(abs(np.reshape(image.GetDirection(), (3, 3))[2])))
    index = image.TransformPhysicalPointToIndex([float(c) for c in point])[across]
    level = min(max(index, 0), image.GetSize()[across] - 1)
    plane = [slice(None)] * 3
    plane[across] = slice(level, level + 1)
    whole = _turn(image[tuple(plane)])
    columns, rows, _ = whole.GetSize()
    extent = [n * mm for n, mm in zip((columns, rows), whole.GetSpacing(), strict=False)]
    size = tuple(max(1, round(mm * OVERVIEW_PIXELS / max(extent))) for mm in extent)
    grey = Image.fromarray(WINDOWS["lung"].grey(sitk.GetArrayViewFromImage(whole)[0]))
    small = np.asarray(grey.resize(size, Image.Resampling.BOX))
    first = turned.TransformIndexToPhysicalPoint([place.start for place in shown[::-1]])
    left, top, _ = whole.TransformPhysicalPointToContinuousIndex(first)
    _, height, width = (place.stop - place.start for place in shown)
    box = tuple(round(100 * share, 2) for share in (left / columns, top / rows, width / columns, height / rows))
    up = np.reshape(image.GetDirection(), (3, 3))[2, across] > 0
    count = image.GetSize()[across]
    picture = Picture({"lung": [_png(small)]}, size, tuple(extent))
    return Overview(picture, box, level + 1 if up else count - level, count)


def _coloured(grey: Array, change: Array) -> Array:
    """Return a grey picture under colours, uint8 (rows, columns, 3), for ``change`` from -1 to 1 (rows, columns)."""
    colour = np.where(change[..., None] > 0, _RAISES, _LOWERS)
    share = _MOST_COLOUR * abs(change[..., None])
    picture: Array = np.rint((1 - share) * grey[..., None] + share * colour).astype(np.uint8)
    return picture


def _png(grey: Array) -> str:
    """Return a PNG in base64 of uint8 (rows, columns) or, in colour, (rows, columns, 3)."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
