"""Which nodule is which, and what is too doubtful to say."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nodulemc.ct.volume import Volume
from nodulemc.measure import matching
from nodulemc.measure.mask import NoduleMask, nodule_mask
from nodulemc.measure.matching import DoubtError, Matching, MeasuredScan
from nodulemc.measure.registration import Alignment, Registration
from nodulemc.measure.sizes import Measurements, measure
from nodulemc.patch import SIZE, VOXEL_MM, patch_origin
from nodulemc.points.nodules import Nodule

SHIFT = (100.0, -50.0, 30.0)


class Shifted:
    """A registration that finds a shift, less surely at each point farther to the left."""

    def __init__(self, scan, earlier):
        assert scan is not earlier

    def around(self, point, nodule):
        if point[0] < -100:
            return None
        return Alignment(sitk.Euler3DTransform((0, 0, 0), 0, 0, 0, SHIFT), 0.9 if point[0] >= 0 else 0.3)


@pytest.fixture(autouse=True)
def _shifted(monkeypatch):
    monkeypatch.setattr(matching, "Registration", Shifted)


def scan_of(*points, names=None):
    image = sitk.Image([4, 4, 4], sitk.sitkInt16)
    nothing = NoduleMask((0, 0, 0), np.zeros((1, 1, 1), np.float32), None, ())
    nodules = [Nodule(name, point) for name, point in zip(names or [None] * len(points), points, strict=True)]
    count = len(points)
    return MeasuredScan(Volume(image, Path("ct.mha")), nodules, [nothing] * count, [Measurements()] * count)


def moved(*points):
    return [tuple(np.add(point, SHIFT).tolist()) for point in points]


def test_nodules_are_matched_whatever_their_order():
    points = [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (0.0, 40.0, 0.0)]
    prior = scan_of(*moved(points[2], points[0], np.add(points[1], (0, 3, 4))))
    found = [Matching(scan_of(*points), prior).match(k) for k in range(3)]
    assert [match.index for match in found] == [1, 2, 0]
    assert [match.distance_mm for match in found] == pytest.approx([0, 5, 0])
    assert {match.similarity for match in found} == {0.9}


@pytest.mark.parametrize(
    ("points", "prior", "why"),
    [
        ([(0, 0, 0)], [], "the prior scan has no points"),
        ([(-200, 0, 0)], [(-100, -50, 30)], "there is no lung around it"),
        ([(-5, 0, 0)], [(95, -50, 30)], r"does not fit that of the prior scan \(correlation 0.30, needed 0.4\)"),
        ([(0, 0, 0)], [(100, -50, 42)], "within 10 mm of its place there; the nearest is 12 mm off"),
        ([(0, 0, 0)], [(104, -50, 30), (100, -58, 30)], "it may be 1 or 2 of the prior scan"),
        ([(0, 0, 0), (0, 6, 0)], [(100, -48, 30)], "1 of the prior scan may be this nodule or 2"),
    ],
)
def test_what_is_doubtful_is_not_matched(points, prior, why):
    with pytest.raises(DoubtError, match=why):
        Matching(scan_of(*points), scan_of(*prior)).match(0)


def test_a_rival_that_is_clearly_farther_off_raises_no_doubt():
    prior = scan_of((101, -50, 30), (107, -50, 30), names=["a", "b"])
    assert Matching(scan_of((0, 0, 0), (-0.0, 7.5, 0)), prior).match(0).index == 0


def test_a_nodule_whose_own_place_is_doubtful_is_no_rival():
    prior = scan_of((99, -50, 30))
    assert Matching(scan_of((0, 0, 0), (-1, 0, 0)), prior).match(0).index == 0


def test_centres_are_those_of_masks_or_else_points():
    image = sitk.Image([20, 20, 20], sitk.sitkInt16)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-5.0, 0.0, 7.0))
    mask = NoduleMask((4, 5, 6), np.ones((1, 1, 3), np.float32), 0.0, ())
    nothing = NoduleMask((0, 0, 0), np.zeros((1, 1, 1), np.float32), None, ())
    nodules = [Nodule("a", (0.0, 0.0, 0.0)), Nodule("b", (1.0, 2.0, 3.0))]
    scan = MeasuredScan(Volume(image, Path("ct")), nodules, [mask, nothing], [])
    assert scan.centres.tolist() == [[0.0, 10.0, 25.0], [1.0, 2.0, 3.0]]


def on_patch(mask, point, to_mask):
    """A mask (an image of 0 and 1) on a patch's grid, whose points ``to_mask`` takes to the mask's."""
    grid = sitk.Image([SIZE] * 3, sitk.sitkUInt8)
    grid.SetSpacing([VOXEL_MM] * 3)
    grid.SetOrigin(patch_origin(point))
    return sitk.GetArrayFromImage(sitk.Resample(mask, grid, to_mask, sitk.sitkLinear, 0.0, sitk.sitkFloat32))


def measured_scan(image, point, probability):
    volume = Volume(image, Path("ct.mha"))
    mask = nodule_mask(volume, point, probability)
    return MeasuredScan(volume, [Nodule(None, tuple(point))], [mask], [measure(volume, mask)])


@pytest.mark.heavy
@pytest.mark.parametrize("row", [1, 8, 15])
def test_a_real_nodule_moved_and_enlarged_by_known_amounts(shared_data, monkeypatch, row):
    """LIDC-IDRI's: the earlier scan is turned, shifted and on another grid; since then the volume has doubled."""
    monkeypatch.setattr(matching, "Registration", Registration)
    folder = shared_data / "lidc" / "cubes"
    with (folder / "table.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if float(one["volume_mm3"]) > 900]
    cube = sitk.Cast(sitk.ReadImage(str(folder / "ct" / f"{rows[row]['SeriesInstanceUID']}.mha")), sitk.sitkInt16)
    reader = sitk.ReadImage(str(folder / "masks" / f"{rows[row]['AnnotationID']}.mha"))
    outline = sitk.Resample(sitk.Cast(reader > 0, sitk.sitkFloat32), cube, sitk.Transform(), sitk.sitkNearestNeighbor)
    filled = np.argwhere(sitk.GetArrayViewFromImage(outline))
    centre = np.array(cube.TransformContinuousIndexToPhysicalPoint(filled.mean(axis=0)[::-1].tolist()))
    motion = sitk.Euler3DTransform(centre.tolist(), *np.radians((4.0, -3.0, 6.0)).tolist(), [30.0, -20.0, 70.0])
    grid = sitk.Image([48, 48, 32], sitk.sitkUInt8)
    grid.SetSpacing((0.9, 0.9, 1.3))
    grid.SetOrigin((np.array(motion.TransformPoint([0.0, 0.0, 0.0])) - (21.2, 21.2, 20.2)).tolist())
    earlier = sitk.Resample(cube, grid, motion.GetInverse(), sitk.sitkLinear, -1000.0)
    moved = motion.TransformPoint(centre.tolist())
    shrink = sitk.ScaleTransform(3, [2 ** (-1 / 3)] * 3)
    shrink.SetCenter(centre.tolist())
    scan = measured_scan(cube, centre, on_patch(outline, centre, shrink))
    prior = measured_scan(earlier, moved, on_patch(outline, moved, motion.GetInverse()))
    match = Matching(scan, prior).match(0)
    assert match.distance_mm < 1
    assert match.similarity > 0.7
    assert prior.sizes[0].volume_mm3 == pytest.approx(len(filled) * np.prod(cube.GetSpacing()), rel=0.05)
    assert scan.sizes[0].volume_mm3 / prior.sizes[0].volume_mm3 == pytest.approx(2, rel=0.06)
