"""Registering the surroundings of a nodule with an earlier scan of the same patient, by a rigid motion in two steps.

First the whole scans are registered: the best shift is found by Fourier transform, then a rotation and shift from
there. Then only the lung around the nodule counts, since breathing moves parts of the chest against each other. The
nodule itself does not count, since it may have changed. All voxels are used and one thread adds them up, so the result
is deterministic. `benchmarks/registration.py` has the errors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.errors import out_of_memory
from nodulemc.measure.mask import NoduleMask
from nodulemc.patch import AIR_HU
from nodulemc.points.placement import LUNG_HU
from nodulemc.util.itk import itk_silence

_HU = (AIR_HU, 200.0)  # bone and contrast agent are denser
# The largest blocks of whole scans in mm. They are smaller for scans of small parts of a chest.
_WHOLE_MM, _WHOLE_VOXELS = 6.0, 32
_MOST_VOXELS = 64  # per axis of the grid for Fourier transforms, for any stated size of a scan
_LEAST_OVERLAP = 0.5  # chosen: a share of the smaller scan
_AROUND_MM = 60.0  # chosen: the edge of the cube around the nodule
_MARGIN_MM = 20.0  # chosen: the most that breathing may move it
_FINE_MM = 2.0
_WALL_MM = 4.0  # walls so near to lung help to find the motion, but do not show whether it is right
_VESSEL_MM = 5.0  # half the width of the widest vessel that counts as lung
_LEAST_ML = 2.0  # chosen: the least inner lung in the cube
_DETAIL_MM = (1.0, 4.0)  # chosen: vessels; lungs' darker and brighter parts are alike in many patients
_LEAST_SIZE = 4  # voxels that ITK's Gaussians need along each axis
# Steps in mm, halved where they go too far.
_OPTIMIZER = {
    "learningRate": 2.0, "minStep": 0.02, "numberOfIterations": 30, "relaxationFactor": 0.5,
    "gradientMagnitudeTolerance": 1e-10,
}  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """The alignment of a nodule's surroundings with the earlier scan.

    Attributes:
        motion: It maps points x, y, z in mm (LPS) of this scan to the earlier one.
        similarity: The correlation of the two scans' vessels in the lung around the nodule, away from its walls; at
            most 1.
    """

    motion: sitk.Euler3DTransform
    similarity: float


class Registration:
    """Two scans of one patient, registered as wholes."""

    def __init__(self, scan: Volume, earlier: Volume) -> None:
        self._scan, self._earlier = scan, earlier
        corners = [_corners(volume.image) for volume in (scan, earlier)]
        longest = max(np.ptp(ends, axis=0).max() for ends in corners)
        mm = min(_WHOLE_MM, max(_FINE_MM, longest / _WHOLE_VOXELS))
        whole, earlier_whole = (_binned(volume.image, mm) for volume in (scan, earlier))
        centre = corners[0].mean(axis=0).tolist()
        shift = _best_shift(whole, earlier_whole, max(mm, longest / _MOST_VOXELS))
        start = sitk.Euler3DTransform(centre, 0.0, 0.0, 0.0, shift.tolist())
        self.motion = _refined(whole, earlier_whole, start, (4.0,))

    def around(self, point: Sequence[float], nodule: NoduleMask) -> Alignment | None:
        """Return the motion of the lung around a point x, y, z in mm (LPS), without its nodule; None without lung."""
        corners = np.array(point) + _AROUND_MM / 2 * np.array(list(product((-1, 1), repeat=3)))
        moved = np.array([self.motion.TransformPoint(corner.tolist()) for corner in corners])
        outwards = np.sign(moved - moved.mean(axis=0))
        fixed = _part(self._scan, corners)
        moving = _part(self._earlier, moved + _MARGIN_MM * outwards)
        if fixed is None or moving is None:
            return None
        lung = _lung(fixed)
        other = sitk.Not(sitk.BinaryDilate(_on_grid(nodule, self._scan, fixed), _voxels(_WALL_MM, fixed)))
        inner = sitk.And(_inner(lung), other)
        if not _is_enough(sitk.GetArrayViewFromImage(inner), fixed):
            return None
        counted = sitk.And(sitk.BinaryDilate(lung, _voxels(_WALL_MM, fixed)), other)
        motion = _refined(fixed, moving, _centred(self.motion, point), (3.0, 1.0), counted)
        return Alignment(motion, _similarity(fixed, moving, motion, inner))


def _corners(image: sitk.Image) -> Array:
    """Return the world positions (8, 3) of the corner voxels' centres."""
    ends = product(*((0, n - 1) for n in image.GetSize()))
    return np.array([image.TransformIndexToPhysicalPoint(end) for end in ends])


def _binned(image: sitk.Image, mm: float) -> sitk.Image:
    """Return means over blocks of at most this size in mm, or over single voxels if these are larger.

    The result is float32, limited to the range of HU that counts.
    """
    steps = [max(1, min(int(mm / spacing), n)) for spacing, n in zip(image.GetSpacing(), image.GetSize(), strict=True)]
    means = sitk.BinShrink(image, steps)
    low, high = _HU
    values = np.nan_to_num(sitk.GetArrayViewFromImage(means).astype(np.float32), nan=low)
    binned = sitk.GetImageFromArray(np.clip(values, low, high))
    binned.CopyInformation(means)
    return binned


def _part(volume: Volume, corners: Array) -> sitk.Image | None:
    """Return the part of a scan in a box around world points (N, 3), in finer blocks. None if it is too small."""
    low, high = volume.box_around(corners)
    if min(np.subtract(high, low)) < 1:
        return None
    part = _binned(volume.image[tuple(map(slice, low, high))], _FINE_MM)
    return part if min(part.GetSize()) >= _LEAST_SIZE else None


def _best_shift(scan: sitk.Image, earlier: sitk.Image, mm: float) -> Array:
    """Return the shift x, y, z in mm at which a scan is most similar to the earlier one, to the nearest ``mm``."""
    (fixed, inside, start), (moving, moving_inside, moving_start) = _upright(scan, mm), _upright(earlier, mm)
    likeness = sitk.MaskedFFTNormalizedCorrelation(fixed, moving, inside, moving_inside, 0, _LEAST_OVERLAP)
    values = sitk.GetArrayViewFromImage(likeness)
    best = np.unravel_index(values.argmax(), values.shape)[::-1]
    # The first value belongs to the moving image's last voxel on the fixed image's first one.
    shift: Array = moving_start - start - mm * (np.array(best) - np.subtract(moving.GetSize(), 1))
    return shift


def _upright(image: sitk.Image, mm: float) -> tuple[sitk.Image, sitk.Image, Array]:
    """Return an image on a grid along the world's axes, a mask of 1 where it has values, and the grid's place.

    The images themselves lie at 0, because Fourier transforms know no place.
    """
    corners = _corners(image)
    start = corners.min(axis=0)
    grid = sitk.Image((np.ceil((corners.max(axis=0) - start) / mm) + 1).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetSpacing([mm] * 3)
    grid.SetOrigin(start.tolist())
    outside = 2 * AIR_HU
    found = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, outside)
    parts = sitk.Clamp(found, sitk.sitkFloat32, *_HU), sitk.Cast(found > outside, sitk.sitkFloat32)
    for part in parts:
        part.SetOrigin((0.0, 0.0, 0.0))
    return *parts, start


def _lung(image: sitk.Image) -> sitk.Image:
    """Return a mask of voxels as dark as lung."""
    smooth = sitk.SmoothingRecursiveGaussian(image, _FINE_MM)
    low, high = LUNG_HU
    lung: sitk.Image = sitk.And(smooth > low, smooth < high)
    return lung


def _inner(lung: sitk.Image) -> sitk.Image:
    """Return a mask of lung and its vessels, but without the parts near its walls, which look alike in all patients."""
    with_vessels = sitk.BinaryMorphologicalClosing(lung, _voxels(_VESSEL_MM, lung))
    inner: sitk.Image = sitk.BinaryErode(with_vessels, _voxels(_WALL_MM, lung))
    return inner


def _on_grid(nodule: NoduleMask, scan: Volume, grid: sitk.Image) -> sitk.Image:
    mask = sitk.GetImageFromArray(nodule.voxels.astype(np.uint8))
    mask.SetOrigin(scan.image.TransformIndexToPhysicalPoint(nodule.lower))
    mask.SetSpacing(scan.image.GetSpacing())
    mask.SetDirection(scan.image.GetDirection())
    return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _voxels(mm: float, grid: sitk.Image) -> list[int]:
    return [round(mm / spacing) for spacing in grid.GetSpacing()]


def _is_enough(inner: Array, grid: sitk.Image) -> bool:
    return bool(np.count_nonzero(inner) * np.prod(grid.GetSpacing()) >= 1000 * _LEAST_ML)


def _similarity(fixed: sitk.Image, moving: sitk.Image, motion: sitk.Transform, inner: sitk.Image) -> float:
    """Return the correlation of two images' details in a mask; 0 if too little of it is in the moving image."""
    outside = 100 * AIR_HU
    expected = _details(fixed)
    moved = sitk.GetArrayFromImage(sitk.Resample(_details(moving), fixed, motion, sitk.sitkLinear, outside))
    inside = (sitk.GetArrayViewFromImage(inner) > 0) & (moved > outside)
    if not _is_enough(inside, fixed):
        return 0.0
    return float(np.corrcoef(sitk.GetArrayFromImage(expected)[inside], moved[inside])[0, 1])


def _details(image: sitk.Image) -> sitk.Image:
    fine, coarse = (sitk.SmoothingRecursiveGaussian(image, mm) for mm in _DETAIL_MM)
    details: sitk.Image = fine - coarse
    return details


def _centred(motion: sitk.Euler3DTransform, point: Sequence[float]) -> sitk.Euler3DTransform:
    """Return the same motion as one that turns about a point."""
    centred = sitk.Euler3DTransform(motion)
    point = [float(c) for c in point]
    centred.SetCenter(point)
    centred.SetTranslation(np.subtract(motion.TransformPoint(point), point).tolist())
    return centred


def _refined(
    fixed: sitk.Image,
    moving: sitk.Image,
    motion: sitk.Euler3DTransform,
    sigmas: Sequence[float],
    counted: sitk.Image | None = None,
) -> sitk.Euler3DTransform:
    """Return a better motion, or the same if the images do not overlap.

    Args:
        fixed: The fixed image.
        moving: The moving image.
        motion: It maps points of the fixed image to the moving one.
        sigmas: The sigmas in mm of the Gaussians that smooth both images, in turn.
        counted: The voxels of the fixed image that count. None stands for all.
    """
    found = sitk.Euler3DTransform(motion)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)
    if counted is not None:
        method.SetMetricFixedMask(counted)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(**_OPTIMIZER)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([1] * len(sigmas))
    method.SetSmoothingSigmasPerLevel(sigmas)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(found, inPlace=True)
    with _one_quiet_thread():
        try:
            method.Execute(fixed, moving)
        except RuntimeError as error:  # too few voxels are in both
            if out_of_memory(error):
                raise
            return motion
    return found


@contextmanager
def _one_quiet_thread() -> Iterator[None]:
    """ITK's metrics add up in one thread, as sums differ in their last digits by their number, and say nothing.

    A registration's own number of threads is not its metric's.
    """
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with itk_silence:  # warnings of images that do not meet
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
