import numpy as np
import pytest
from scipy import ndimage

from nodulemc.data.surroundings import complete, without_nodule

SPACING = np.array([2.5, 0.75, 0.75])
LUNG = -850


def slab(*, diameter_mm, slices=4, size=60, seed=0, wall_mm=0.0):
    """Lung of some grain with a wall along low x, and a cylinder of tissue; HU and the cylinder's mask."""
    random = np.random.default_rng(seed)
    hu = np.rint(random.normal(LUNG, 20, (slices, size, size)))
    hu[:, :, : int(wall_mm / SPACING[2])] = 40
    y, x = (np.indices((size, size)) - (size - 1) / 2) * 0.75
    mask = np.repeat((np.hypot(y, x) <= diameter_mm / 2)[None], slices, axis=0)
    hu[mask] = 30
    return hu.astype(np.int16), mask.astype(np.uint8)


def completed(hu, mask, pads=(10, 20, 20), seed=3):
    return complete(hu, mask, SPACING, np.array(pads), np.array(pads), seed)


@pytest.mark.parametrize("diameter_mm", [6, 20, 30])
def test_the_slices_are_kept_and_tissue_is_nowhere_else(diameter_mm):
    hu, mask = slab(diameter_mm=diameter_mm)
    full, full_mask = completed(hu, mask)
    core = (slice(10, 14), slice(20, 80), slice(20, 80))
    assert full.dtype == np.int16
    assert full.shape == full_mask.shape == (24, 100, 100)
    np.testing.assert_array_equal(full[core], hu)
    np.testing.assert_array_equal(full_mask[core], mask)
    assert full_mask.sum() == mask.sum()
    outside = np.ones(full.shape, bool)
    outside[core] = False
    assert full[outside].max() < LUNG + 150
    # The lung's grain, not a smooth fill.
    assert full[:10].std() == pytest.approx(20, abs=1)


def test_what_covers_the_nodule_is_lung_where_a_wall_is_near():
    hu, mask = slab(diameter_mm=10, wall_mm=9)
    bare = without_nodule(hu, mask, SPACING)
    assert bare[mask == 1].max() < LUNG + 150
    # Far from the nodule nothing changes: SciPy's distance is the judge.
    distance = ndimage.distance_transform_edt(mask[0] == 0, sampling=SPACING[1:])
    np.testing.assert_array_equal(bare[:, distance > 4.6], hu[:, distance > 4.6])


def test_a_mask_in_some_slices_is_covered_in_all():
    # Beyond the outlines a nodule's blurred end is still there.
    hu, mask = slab(diameter_mm=10)
    mask[[0, 3]] = 0
    assert without_nodule(hu, mask, SPACING).max() < LUNG + 150


def test_slices_are_mirrored_and_drift_by_up_to_45_degrees():
    hu, mask = slab(diameter_mm=0.1, slices=3)
    hu[:, 28, 32] = 500  # a vessel along z
    full, _ = completed(hu, np.zeros_like(mask), pads=(6, 0, 0), seed=5)
    tracks = np.array([np.argwhere(part == 500)[0] for part in full])
    np.testing.assert_array_equal(tracks[6:9], [[28, 32]] * 3)
    for steps in (tracks[6::-1], tracks[8:]):
        moved = (steps - steps[0]) * 0.75
        slope = np.hypot(*moved[-1]) / (6 * 2.5)
        assert 0 < slope <= 1.05
        # In a straight line, as far as whole voxels allow.
        expected = np.outer(np.arange(7), moved[-1] / 6)
        assert np.abs(moved - expected).max() <= 0.75
    # Mirrored: the next slice is a copy of the last one, moved.
    shift = tracks[5] - tracks[6]
    np.testing.assert_array_equal(np.roll(hu[0], shift, (0, 1))[15:45, 15:45], full[5][15:45, 15:45])


def test_the_same_seed_gives_the_same_surroundings_and_another_one_others():
    hu, mask = slab(diameter_mm=8)
    first, again, other = (completed(hu, mask, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.heavy
def test_a_nodule_that_leaves_no_lung_is_covered_by_what_is_nearest():
    hu, mask = slab(diameter_mm=38)
    bare = without_nodule(hu, mask, SPACING)
    assert (bare[:, 30, 30] < -700).all()
    hu, mask = slab(diameter_mm=70)
    np.testing.assert_array_equal(without_nodule(hu, mask, SPACING), hu)


def test_distances_are_those_of_scipy():
    region = np.zeros((20, 30), bool)
    region[8, 9] = True
    from nodulemc.data.surroundings import _distance

    expected = ndimage.distance_transform_edt(~region, sampling=(0.5, 2.0))
    np.testing.assert_allclose(_distance(region, np.array([1.0, 0.5, 2.0])), expected, atol=1e-4)
