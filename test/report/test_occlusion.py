from itertools import product

import numpy as np
import pytest
from report.nodule_patch import (
    AWAY,
    DIAMETER,
    LUNG_HU,
    MASK,
    NEAR_WALL,
    NOISE_HU,
    SPICULES,
    TISSUE_HU,
    X,
    Y,
    Z,
    make_patch,
)  # fmt: skip

from nodulemc.patch import SIZE, VOXEL_MM, scale_hu
from nodulemc.report.occlusion import (
    CELLS,
    CORE,
    PARTS,
    PLEURA,
    RIM,
    SOLID,
    Occlusion,
    cell_slices,
    plane_cells,
)  # fmt: skip

pytestmark = pytest.mark.heavy


def hu(scaled):
    return np.float64(scaled) * 1400 - 1000


@pytest.fixture(scope="module")
def occlusion():
    return Occlusion(make_patch(), MASK)


@pytest.fixture(scope="module")
def left(occlusion):
    return {part: hu(occlusion.without(part)) for part in PARTS}


INSIDE, IN_WALL, IN_SPICULES = AWAY < 4, Y > 15, SPICULES & (abs(X) > DIAMETER / 2 + 2)
FREE = (AWAY > 14) & (Y < 2)  # lung


@pytest.mark.parametrize(
    ("part", "inside", "spicules", "wall"),
    [
        (RIM, TISSUE_HU, LUNG_HU, TISSUE_HU),
        (PLEURA, TISSUE_HU, None, TISSUE_HU),
        (SOLID, -550, None, TISSUE_HU),
        (CORE, None, None, TISSUE_HU),
    ],
)
def test_a_part_and_no_other_becomes_what_would_be_there(occlusion, left, part, inside, spicules, wall):
    before = hu(occlusion.patch)
    assert left[part].shape == before.shape
    for where, level in ((INSIDE, inside), (IN_SPICULES, spicules), (IN_WALL, wall), (FREE, LUNG_HU)):
        if level is not None:
            assert left[part][where].mean() == pytest.approx(level, abs=25)
    assert left[part][NEAR_WALL].mean() == pytest.approx(LUNG_HU if part == PLEURA else TISSUE_HU, abs=60)
    untouched = IN_WALL | INSIDE if part in (RIM, PLEURA) else IN_WALL
    np.testing.assert_allclose(left[part][untouched], before[untouched], atol=25)
    np.testing.assert_allclose(left[part][FREE], before[FREE], atol=1)


def test_a_core_as_large_as_the_least_nodule_is_left(left):
    there = (left[CORE] > (LUNG_HU + TISSUE_HU) / 2) & (AWAY < 10) & ~IN_SPICULES & (np.hypot(Z, Y) < 5)
    there &= abs(X) < 5
    assert there.sum() * VOXEL_MM**3 == pytest.approx(np.pi / 6 * 4**3, rel=0.35)


@pytest.mark.parametrize("part", [RIM, PLEURA, SOLID, CORE])
def test_no_edge_is_sharper_than_before(part):
    quiet = Occlusion(make_patch(noise_hu=0), MASK)
    before, after = (
        max(abs(np.diff(field, axis=axis)).max() for axis in range(3)) for field in (quiet.patch, quiet.without(part))
    )
    assert after <= 1.05 * before


def test_noise_of_what_became_lung_is_as_strong_as_the_lungs(left):
    assert left[PLEURA][NEAR_WALL].std() == pytest.approx(NOISE_HU, rel=0.4)


def test_a_nodule_without_spicules_stays_without_its_rim():
    smooth = Occlusion(make_patch(spicules=False), MASK)
    change = hu(smooth.without(RIM)) - hu(smooth.patch)
    assert abs(change[AWAY < DIAMETER / 2 - 1]).max() < 40
    assert abs(change).mean() < 3


def test_the_level_is_the_lungs_nearby():
    patch = make_patch(noise_hu=0)
    patch[(X > 0) & (patch < 0.15)] += np.float32(60 / 1400)  # one half of the lung is denser
    occlusion = Occlusion(patch, MASK)
    for cell, level in (((3, 5, 0), LUNG_HU), ((3, 5, 6), LUNG_HU + 60)):
        middle = tuple(slice(part.start + 3, part.stop - 3) for part in cell_slices(cell))
        assert hu(occlusion.without_cell(cell))[middle].mean() == pytest.approx(level, abs=20)


def test_where_there_is_no_lung_it_is_a_usual_one():
    solid = np.full((SIZE,) * 3, scale_hu(np.float32(TISSUE_HU)))
    assert hu(Occlusion(solid, MASK).without(RIM))[AWAY > 40].mean() == pytest.approx(TISSUE_HU, abs=1)
    cell = (3, 3, 3)
    middle = tuple(slice(30, 34) for _ in range(3))
    assert hu(Occlusion(solid).without_cell(cell))[middle].mean() == pytest.approx(-850, abs=60)


def test_air_alone_has_nothing_to_replace():
    air = Occlusion(np.zeros((SIZE,) * 3, np.float32))
    assert all(air.without_cell(cell) is None for cell in plane_cells())


def test_cells_of_lung_are_left_out_and_others_replaced_one_at_a_time():
    occlusion = Occlusion(make_patch())
    found = {cell: occlusion.without_cell(cell) for cell in plane_cells()}
    dense = {cell for cell, without in found.items() if without is not None}
    assert (3, 3, 3) in dense
    assert all((z, CELLS - 1, CELLS // 2) in dense for z in range(CELLS))
    assert not any((z, 0, CELLS // 2) in dense for z in range(CELLS))
    far = np.ones((SIZE,) * 3, bool)
    far[tuple(slice(part.start - 4, part.stop + 4) for part in cell_slices((3, 3, 3)))] = False
    np.testing.assert_allclose(found[3, 3, 3][far], occlusion.patch[far], atol=1e-3)
    assert hu(found[3, 3, 3])[AWAY < 1.5].mean() == pytest.approx(LUNG_HU, abs=30)


def test_cells_are_a_partition_and_planes_run_through_the_middle_ones():
    assert cell_slices((0, 3, 6)) == (slice(0, 9), slice(27, 37), slice(55, 64))
    times = np.zeros((SIZE,) * 3, int)
    for cell in product(range(CELLS), repeat=3):
        times[cell_slices(cell)] += 1
    assert (times == 1).all()
    cells = [*plane_cells()]
    assert len(cells) == len({*cells}) == 3 * CELLS**2 - 3 * CELLS + 1
    middle = {31, 32}
    through = [cell for cell in product(range(CELLS), repeat=3)
               if any(middle & {*range(part.start, part.stop)} for part in cell_slices(cell))]  # fmt: skip
    assert cells == through
