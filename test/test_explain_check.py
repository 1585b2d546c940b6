from types import SimpleNamespace

import numpy as np
import pytest
from conftest import load_script

from nodulemc.patch import VOXEL_MM
from nodulemc.report.explain_check import Check

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def script():
    return load_script("explain_check")


@pytest.fixture(scope="module")
def cases(script):
    return script.cases_of(0)


class Density:
    """An ensemble whose probability is the mean of a patch's middle, and whose mask is what is dense there."""

    manifest = SimpleNamespace(segments=True)

    def member_probabilities(self, patches):
        return np.array([[patch[26:38, 26:38, 26:38].mean()] for patch in patches])

    def vote(self, by_member):
        return by_member[:, 0]

    def mask_probabilities(self, patches):
        inside = np.zeros_like(patches)
        inside[:, 20:44, 20:44, 20:44] = 1
        return inside * (patches > 0.4)


def test_a_case_is_cut_around_its_nodule(script, cases):
    for case in cases:
        patch, filled = case.cut()[1], case.on_patch()
        volume = filled.sum() * VOXEL_MM**3
        assert patch[filled > 0.9].size == 0 or patch[filled > 0.9].mean() > 0.6
        if case.lesion.traits.density == "solid" and case.lesion.traits.margin != "spiculated":
            assert volume == pytest.approx(np.pi / 6 * case.lesion.first_diameter**3, rel=0.1)


def test_density_moves_as_is_known_and_as_it_is_drawn(script, cases):
    part_solid = cases[2]
    moves = script.moves_of(part_solid, Density())
    assert set(moves) == {"solid", "rim", "pleura"}
    assert moves["rim"].known == moves["pleura"].known == 0
    assert moves["rim"].anew is moves["pleura"].anew is None
    assert moves["solid"].known < 0
    assert moves["solid"].replaced < 0
    assert moves["solid"].replaced == pytest.approx(moves["solid"].anew, rel=0.5)


def test_without_a_mask_there_are_no_moves(script, cases):
    ensemble = Density()
    ensemble.manifest = SimpleNamespace(segments=False)
    assert script.moves_of(cases[2], ensemble) == {}


def test_the_map_of_a_network_that_sees_the_nodule_points_to_it(script, cases):
    moves, held = script.map_of(cases[4], Density())
    assert moves.sum() == pytest.approx(1)
    assert held.sum() == pytest.approx(1)
    assert script.check_of_maps([(moves, held)]).agreement == 1


def test_a_check_is_the_correlation_and_the_share_that_moves_the_known_way(script):
    rows = [(-3.0, -1.0, -2.0), (-3.0, 0.5, -1.0), (2.0, 1.5, 1.0), (0.0, 0.25, None), (0.25, -4.0, None)]
    moves = [script.Move(*row) for row in rows]
    known, replaced = ([row[k] for row in rows] for k in (0, 1))
    expected = np.corrcoef(known, replaced)[0, 1]
    assert script.check_of(moves) == Check(pytest.approx(expected), pytest.approx(2 / 3), 5)


def test_a_map_that_points_elsewhere_fails(script):
    held = np.array([1.0, 0.0, 0.0])
    right, wrong = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.8, 0.1])
    found = script.check_of_maps([(right, held), (wrong, held)])
    assert (found.agreement, found.nodules) == (0.5, 2)
    assert not found.passed
    assert script.check_of_maps([(right, held)] * 5).passed


def test_an_ensemble_that_does_not_move_fails(script):
    assert not script.check_of([script.Move(-3.0, 0.0, 0.0), script.Move(0.0, 0.0, None)]).passed


def test_the_table(script):
    moves = {"rim": [script.Move(-3.0, -1.0, -2.0), script.Move(-3.0, -2.0, -3.0), script.Move(0.0, 0.25, None)]}
    checks = {"rim": Check(0.75, 1.0, 3), "map": Check(0.25, 0.5, 6)}
    *_, rim, map_ = script.table(checks, moves)
    assert rim == "| rim | 3 | -3.00 | -2.50 | -1.50 | +0.25 | 1.00 | 0.75 | 100% | yes |"
    assert map_ == "| map | 6 |  |  |  |  |  | 0.25 | 50% | no |"
