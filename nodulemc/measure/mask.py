"""A nodule's mask on its scan's own grid, from the ensemble's probability on the patch's grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.patch import CENTRE_INDEX, EXTENT_MM, VOXEL_MM, patch_origin
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction, concluded, in_turn, with_warnings
from nodulemc.quality import ScanWarnings
from nodulemc.util.progress import QUIET_S, progress

THRESHOLD = 0.5
REACH_MM = 5.0  # chosen: a mask that lies farther from the point belongs to another structure
MOST_BESIDE_MM = 2.0  # chosen: a point that lies farther beside its mask gets a warning
RELEVANT_PART = 0.1  # chosen: a share of the mask's volume; smaller parts beside it get no warning
AT_EDGE = f"its mask reaches the edge of its {EXTENT_MM:g} mm cube: the nodule may be larger"
AT_SCANS_EDGE = "its mask reaches the edge of the scan: the nodule may be larger"
_INSIDE_MM = VOXEL_MM * 3**0.5 / 2  # the distance to the nearest voxel's centre


@dataclass(frozen=True)
class NoduleMask:
    """A nodule's mask on a box of the scan's voxels, which holds all of it.

    Attributes:
        lower: The index x, y, z of the box's first voxel in the scan.
        probability: float32, axes z, y, x, interpolated and so only about 0…1. The mask is where it exceeds one half.
        point_distance_mm: The distance from the nodule's point to the mask, 0 within it. None if there is no mask.
        warnings: Reasons to read its measurements with caution.
    """

    lower: tuple[int, int, int]
    probability: Array
    point_distance_mm: float | None
    warnings: tuple[str, ...]

    @property
    def voxels(self) -> Array:
        """The mask: bool, axes z, y, x."""
        return self.probability > THRESHOLD

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box in an array of the scan, axes z, y, x."""
        starts = self.lower[::-1]
        z, y, x = (slice(start, start + n) for start, n in zip(starts, self.probability.shape, strict=True))
        return z, y, x


def score_and_segment(
    volume: Volume, nodules: Sequence[Nodule], patches: Array, warnings: ScanWarnings, ensemble: Ensemble
) -> tuple[list[NodulePrediction], list[NoduleMask]]:
    """Return what ``nodulemc.prediction.predict_patches`` and ``segment`` return, in one pass of the networks.

    The predictions also have the masks' warnings.

    Args:
        volume: The CT.
        nodules: Its nodules.
        patches: Their patches, from ``nodulemc.prediction.prepare_inputs``.
        warnings: Their warnings, from the same.
        ensemble: loaded with ``masks=True``.

    Raises:
        EnsembleError: a member's numbers overflow.
    """

    def find(part: slice) -> tuple[Array, Array, list[NoduleMask]]:
        by_member, attributes, probabilities = ensemble.findings_and_masks(patches[part])
        own = zip(nodules[part], probabilities, strict=True)
        return (
            by_member,
            attributes,
            [nodule_mask(volume, nodule.point, probability) for nodule, probability in own],
        )

    by_member, attributes, masks = in_turn(find, len(nodules), ensemble.device)
    predictions = concluded(nodules, warnings, by_member, attributes, ensemble)
    return with_warnings(predictions, [mask.warnings for mask in masks]), list(masks)


def segment(volume: Volume, points: Sequence[Sequence[float]], patches: Array, ensemble: Ensemble) -> list[NoduleMask]:
    """Segment each nodule.

    Args:
        volume: The CT.
        points: The nodules' points x, y, z in mm (LPS).
        patches: Their patches, from ``nodulemc.prediction.extract_patches``.
        ensemble: An ensemble loaded with ``masks=True``.

    Raises:
        EnsembleError: a member's numbers overflow.
    """
    # One at a time: all probabilities of a thousand nodules take gigabytes.
    found = (
        nodule_mask(volume, point, ensemble.mask_probabilities(patches[k : k + 1])[0]) for k, point in enumerate(points)
    )
    return list(progress(found, len(points), "masks", quiet_s=QUIET_S))


def nodule_box(volume: Volume, point: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the scan's voxels in a nodule's cube: the first index x, y, z, and the one after the last."""
    corners = np.array(point) + EXTENT_MM / 2 * np.array(list(product((-1, 1), repeat=3)))
    return volume.box_around(corners)


def nodule_part(volume: Volume, point: Sequence[float]) -> sitk.Image:
    """Return the scan's voxels in ``nodule_box``, with their place: enough for a mask and its measurements."""
    part: sitk.Image = volume.image[tuple(map(slice, *nodule_box(volume, point)))]
    return part


def nodule_mask(volume: Volume, point: Sequence[float], probability: Array) -> NoduleMask:
    """Return the mask at a nodule's point.

    It is the component that holds the point, else the nearest one within ``REACH_MM``. Voxels that share a face belong
    together. The component's probability is interpolated at the scan's voxels by cubic B-splines.

    Args:
        volume: The CT.
        point: The nodule's point x, y, z in mm (LPS).
        probability: For each voxel of the patch, the probability that it belongs to the nodule: (64, 64, 64), axes
            z, y, x.
    """
    labels, label, away = _nearest_component(probability)
    if not label:
        return _nothing(volume, point, "its mask is empty")
    beside = f"its mask lies {away:.0f} mm beside the point"
    if away > REACH_MM:
        return _nothing(volume, point, f"{beside}, too far to be this nodule's")
    own = np.where((labels == label) | (labels == 0), probability, 0)
    lower, found = _on_scan(volume, point, own)
    if not (found > THRESHOLD).any():
        return _nothing(volume, point, "its mask lies between the CT's voxels")
    start, trimmed = _trimmed(lower, found)
    at_scans_edge = [AT_SCANS_EDGE] if _is_at_edge(volume.image, start, trimmed) else []
    warnings = (*([beside] if away > MOST_BESIDE_MM else []), *at_scans_edge, *_faults(labels, label))
    distance = 0.0 if away <= _INSIDE_MM else away
    return NoduleMask(start, trimmed, distance, warnings)


def mask_on_patch(probability: Array) -> Array:
    """Return the component that ``nodule_mask`` takes, on the patch's grid: (64, 64, 64) to bool, the same shape."""
    labels, label, away = _nearest_component(probability)
    found: Array = (labels == label) & bool(label and away <= REACH_MM)
    return found


def _nearest_component(probability: Array) -> tuple[Array, int, float]:
    """Return the components' labels, from 1, and the component nearest to the patch's centre.

    The latter is given by its label, 0 if there is none, and its distance in mm.
    """
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray((probability > THRESHOLD).astype(np.uint8)))
    labels = sitk.GetArrayFromImage(parts)
    filled = np.argwhere(labels)
    if not len(filled):
        return labels, 0, np.inf
    away = np.linalg.norm((filled - CENTRE_INDEX) * VOXEL_MM, axis=1)
    nearest = away.argmin()
    return labels, int(labels[tuple(filled[nearest])]), float(away[nearest])


def _nothing(volume: Volume, point: Sequence[float], why: str) -> NoduleMask:
    """Return a mask of one empty voxel at the point."""
    index = volume.image.TransformPhysicalPointToIndex([float(c) for c in point])
    lower = np.clip(index, 0, np.subtract(volume.image.GetSize(), 1)).tolist()
    return NoduleMask(tuple(lower), np.zeros((1, 1, 1), np.float32), None, (why,))


def _faults(labels: Array, label: int) -> Iterator[str]:
    """Return warnings about a component on the patch's grid and those beside it."""
    sizes = np.bincount(labels.ravel())
    if any(label in face for axis in range(3) for face in (labels.take(0, axis), labels.take(-1, axis))):
        yield AT_EDGE
    others = np.delete(sizes, [0, label])
    others = others[others >= RELEVANT_PART * sizes[label]]
    if len(others):
        largest = others.max() * VOXEL_MM**3
        yield (
            f"its mask falls apart: beside {sizes[label] * VOXEL_MM**3:.0f} mm³ at the point there are "
            f"{len(others)} more of up to {largest:.0f} mm³, which are left out"
        )


def _on_scan(volume: Volume, point: Sequence[float], probability: Array) -> tuple[list[int], Array]:
    """Return a patch's probability at the scan's voxels: their first index x, y, z, and float32, axes z, y, x."""
    image = volume.image
    low, high = nodule_box(volume, point)
    patch = sitk.GetImageFromArray(probability.astype(np.float32))
    patch.SetSpacing([VOXEL_MM] * 3)
    patch.SetOrigin(patch_origin(point))
    size = np.maximum(np.subtract(high, low), 0).tolist()
    origin = image.TransformIndexToPhysicalPoint(low)
    # Linear interpolation cuts the corners of curved shapes: a ball of 8 mm lost 2 % of its volume.
    found = sitk.Resample(
        patch, size, sitk.Transform(), sitk.sitkBSpline3, origin, image.GetSpacing(), image.GetDirection(), 0.0
    )
    return low, sitk.GetArrayFromImage(found)


def _is_at_edge(image: sitk.Image, lower: Sequence[int], probability: Array) -> bool:
    """Return whether a mask holds voxels of an image's first or last layer along an axis.

    This also holds for ``nodule_part``: where the scan goes on, the part's outer voxels lie beyond the patch.

    Args:
        image: The scan, or a nodule's part of it.
        lower: The index x, y, z of the first voxel of the mask's box in the image.
        probability: The box, axes z, y, x.
    """
    filled = np.argwhere(probability > THRESHOLD)[:, ::-1] + lower
    return bool((filled.min(axis=0) == 0).any() or (filled.max(axis=0) == np.subtract(image.GetSize(), 1)).any())


def _trimmed(lower: Sequence[int], probability: Array) -> tuple[tuple[int, int, int], Array]:
    """Return the part of a box with the mask and its neighbours, which the outline is computed from."""
    filled = np.argwhere(probability > THRESHOLD)
    low, high = np.maximum(filled.min(axis=0) - 1, 0), filled.max(axis=0) + 2
    part = probability[tuple(map(slice, low, high))]
    return tuple((np.array(lower) + low[::-1]).tolist()), part.copy()
