"""Registering two scans around a nodule, against the motion by which the second one was drawn."""

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation
from drawn_chest import CENTRE, draw_chest, rigid

from nodulemc.measure.mask import NoduleMask
from nodulemc.measure.registration import Registration

pytestmark = pytest.mark.heavy

PLACE = CENTRE + (10, 5, -10)
NOTHING = NoduleMask((10, 10, 10), np.zeros((1, 1, 1), np.float32), None, ())


@pytest.fixture(scope="module")
def scan():
    return draw_chest([(PLACE, 8.0)])


def error_mm(alignment, motion):
    return np.linalg.norm(np.subtract(alignment.motion.TransformPoint(PLACE), motion.TransformPoint(PLACE)))


@pytest.mark.parametrize(
    ("motion", "grid"),
    [
        (rigid((0, 0, 0), (0, 0, 0)), {}),
        (rigid(), {"spacing": (1.2, 1.3, 2.5)}),
        (rigid((-3, 5, -9), (-60, 110, -400)), {"direction": rotation(12, -8, 20)}),
        (rigid((10, 0, 0), (5, 0, 30)), {"direction": np.diag([-1.0, -1.0, 1.0])}),
    ],
)
def test_a_known_motion_is_found(scan, motion, grid):
    earlier = draw_chest([(PLACE, 6.0)], motion=motion, noise=30, **grid)
    found = Registration(scan, earlier).around(PLACE, NOTHING)
    assert error_mm(found, motion) < 0.4
    assert found.similarity > 0.75


def test_the_nodule_itself_does_not_count(scan):
    """A mass that has grown to one side draws a registration after it, unless it is left out."""
    motion = rigid()
    earlier = draw_chest([(PLACE, 8.0)], motion=motion)
    grown = draw_chest([(PLACE + (9, 0, 0), 24.0)])
    index = sitk.GetArrayFromImage(grown.image) > -300
    ball = draw_chest([(PLACE + (9, 0, 0), 24.0)], lung=0.0, noise=0.0)
    mask = NoduleMask((0, 0, 0), ((sitk.GetArrayFromImage(ball.image) > 160) & index).astype(np.float32), 0.0, ())
    registration = Registration(grown, earlier)
    left_out, counted = (error_mm(registration.around(PLACE, one), motion) for one in (mask, NOTHING))
    assert left_out < 0.4
    assert left_out < counted


def test_the_result_does_not_depend_on_the_number_of_threads(scan):
    earlier = draw_chest([(PLACE, 6.0)], motion=rigid(), spacing=(1.2, 1.3, 2.5))
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for count in (1, 5):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
            found.append(Registration(scan, earlier).around(PLACE, NOTHING))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert found[0].motion.GetParameters() == found[1].motion.GetParameters()
    assert found[0].similarity == found[1].similarity


def test_another_patient_is_not_similar(scan):
    other = draw_chest([(PLACE, 8.0)], seed=1, motion=rigid())
    assert Registration(scan, other).around(PLACE, NOTHING).similarity < 0.4


def test_without_lung_around_there_is_no_alignment(scan):
    solid = draw_chest(lung=20.0)
    assert Registration(solid, scan).around(PLACE, NOTHING) is None


def test_scans_that_do_not_meet_around_the_nodule_are_not_similar(scan):
    """The earlier scan ends beneath the nodule."""
    lower = draw_chest([(PLACE, 8.0)])
    part = lower.image[:, :, :12]
    found = Registration(scan, type(scan)(part, scan.source)).around(PLACE + (0, 0, 35), NOTHING)
    assert found is None or found.similarity < 0.5


def test_scans_of_a_few_slices_or_voxels_that_are_no_numbers_do_no_harm(scan):
    thin = type(scan)(scan.image[:, :, :3], scan.source)
    assert Registration(scan, thin).around(PLACE, NOTHING) is None
    hu = sitk.GetArrayFromImage(scan.image).astype(np.float32)
    hu[:5] = np.nan
    broken = sitk.GetImageFromArray(hu)
    broken.CopyInformation(scan.image)
    assert Registration(type(scan)(broken, scan.source), scan).around(PLACE, NOTHING).similarity > 0.75


def test_an_absurdly_large_scan_takes_no_more_memory(scan):
    large = sitk.Image(scan.image)
    large.SetSpacing((20.0, 20.0, 20.0))
    found = Registration(scan, type(scan)(large, scan.source)).around(PLACE, NOTHING)
    assert found is None or found.similarity < 0.5
