"""Masks on scans' own grids: where they lie, and what is said of them where they are no good."""

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation
from digital_shapes import ball, ellipsoid, make_volume, middle

from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import AT_EDGE, AT_SCANS_EDGE, mask_on_patch, nodule_mask, nodule_part
from nodulemc.patch import VOXEL_MM, patch_origin

GRIDS = {
    "isotropic": ((0.8, 0.8, 0.8), None),
    "thick": ((0.6, 0.65, 2.5), None),
    "flipped": ((0.7, 0.7, 1.25), np.diag([-1, -1, 1])),
    "feet first": ((0.7, 0.7, 1.25), np.diag([1, -1, -1])),
    "sagittal": ((0.7, 1.25, 0.7), np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])),
    "oblique": ((0.7, 0.7, 1.25), rotation(12, -8, 20)),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_a_mask_is_the_probability_that_itk_finds_at_the_scans_voxels(grid):
    volume = make_volume(*GRIDS[grid])
    point = middle(volume, (0.3, -0.4, 0.2))
    probability = ellipsoid((11, 6, 4), rotation(30, 50, 10), shift=(1, -2, 0.5))
    patch = sitk.GetImageFromArray(probability)
    patch.SetSpacing([VOXEL_MM] * 3)
    patch.SetOrigin(patch_origin(point))
    expected = (
        sitk.GetArrayFromImage(sitk.Resample(patch, volume.image, sitk.Transform(), sitk.sitkBSpline3, 0.0)) > 0.5
    )
    mask = nodule_mask(volume, point, probability)
    found = np.zeros_like(expected)
    found[mask.slices] = mask.voxels
    assert expected.any()
    assert (found == expected).all()
    assert mask.warnings == ()
    assert mask.point_distance_mm == 0


def test_of_several_parts_the_one_at_the_point_is_the_mask():
    volume = make_volume()
    other = ball(8, shift=(14, 0, 0))
    mask = nodule_mask(volume, middle(volume), np.maximum(ball(10), other))
    alone = nodule_mask(volume, middle(volume), ball(10))
    assert (mask.voxels == alone.voxels).all()
    (said,) = mask.warnings
    assert said.startswith("its mask falls apart: beside 5")  # 524 mm³
    assert "1 more of up to 2" in said  # 268 mm³


def test_on_the_patch_it_is_the_same_part():
    own, other = ball(10), ball(8, shift=(14, 0, 0))
    assert (mask_on_patch(np.maximum(own, other)) == (own > 0.5)).all()
    assert not mask_on_patch(other).any()  # too far to be this nodule's
    assert not mask_on_patch(np.zeros((64,) * 3)).any()


def test_a_small_part_aside_is_not_spoken_of():
    volume = make_volume()
    mask = nodule_mask(volume, middle(volume), np.maximum(ball(12), ball(4, shift=(14, 0, 0))))
    assert mask.warnings == ()


@pytest.mark.parametrize(
    ("shift", "distance", "said"),
    [(0.0, 0, None), (4.5, 0, None), (6.0, 1.0, None), (8.0, 3.5, "its mask lies 4 mm beside the point"),
     (10.5, None, "its mask lies 6 mm beside the point, too far to be this nodule's")],
)  # fmt: skip
def test_a_point_beside_the_mask(shift, distance, said):
    volume = make_volume()
    mask = nodule_mask(volume, middle(volume), ball(10, shift=(shift, 0, 0)))
    assert mask.warnings == (() if said is None else (said,))
    assert mask.voxels.any() == (distance is not None)
    if distance is None:
        assert mask.point_distance_mm is None
    else:
        assert mask.point_distance_mm == pytest.approx(distance, abs=0.6)  # to a voxel's centre


def test_a_mask_at_the_patchs_edge_is_told():
    volume = make_volume()
    mask = nodule_mask(volume, middle(volume), ball(40, shift=(8, 0, 0)))
    assert mask.warnings == ("its mask reaches the edge of its 50 mm cube: the nodule may be larger",)


def test_an_empty_mask_is_told():
    volume = make_volume()
    mask = nodule_mask(volume, middle(volume), np.full((64,) * 3, 0.5))
    assert mask.warnings == ("its mask is empty",)
    assert not mask.voxels.any()


def test_a_mask_between_two_slices_is_told():
    volume = make_volume((0.7, 0.7, 5.0), extent=75)
    mask = nodule_mask(volume, middle(volume, (0, 0, 0.5)), ball(3.5))
    assert mask.warnings == ("its mask lies between the CT's voxels",)


def test_a_mask_at_the_scans_edge_ends_there():
    volume = make_volume()
    point = volume.image.TransformContinuousIndexToPhysicalPoint([0, 50, 30])
    mask = nodule_mask(volume, point, ball(10))
    assert mask.lower[0] == 0
    assert mask.voxels[:, :, 0].any()
    half = np.count_nonzero(mask.voxels) * 0.7 * 0.7 * 1.25 / (np.pi / 6 * 1000)
    assert 0.5 < half < 0.6  # the middle and half a voxel
    assert mask.warnings == (AT_SCANS_EDGE,)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("axis", "is_last"), [(axis, is_last) for axis in range(3) for is_last in (False, True)])
def test_a_mask_that_the_scan_cuts_is_told_at_each_of_its_six_faces(grid, axis, is_last):
    volume = make_volume(*GRIDS[grid])
    spacing, size = volume.image.GetSpacing()[axis], volume.image.GetSize()[axis]

    def warnings(mm_inside):
        index = (np.array(volume.image.GetSize()) - 1) / 2
        index[axis] = size - 1 - mm_inside / spacing if is_last else mm_inside / spacing
        point = volume.image.TransformContinuousIndexToPhysicalPoint(index.tolist())
        return nodule_mask(volume, point, ball(10)).warnings

    assert warnings(4) == (AT_SCANS_EDGE,)
    assert warnings(6) == ()


@pytest.mark.parametrize("grid", GRIDS)
def test_a_part_of_a_scan_says_the_same_of_the_scans_edge(grid):
    volume = make_volume(*GRIDS[grid])
    at_face = volume.image.TransformContinuousIndexToPhysicalPoint([2.0, *(n / 2 for n in volume.image.GetSize()[1:])])
    for point, expected in ((middle(volume), (AT_EDGE,)), (list(at_face), (AT_SCANS_EDGE, AT_EDGE))):
        part = Volume(nodule_part(volume, point), volume.source)
        for given in (volume, part):
            assert nodule_mask(given, point, np.ones((64,) * 3)).warnings == expected
