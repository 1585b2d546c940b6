from dataclasses import replace

import numpy as np
import pytest
from conftest import rotation
from digital_shapes import ball, make_volume, middle
from report.nodule_patch import MASK, NEAR_WALL, make_patch
from report.samples import make_manifest

from nodulemc.measure.mask import nodule_mask
from nodulemc.patch import SIZE
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction
from nodulemc.report.explain import explain, explanations_of, mask_on_patch
from nodulemc.report.explain_check import Check, write_checks
from nodulemc.report.occlusion import CORE, MAP, PARTS, PLEURA, RIM, SOLID, WHAT, cell_slices

pytestmark = pytest.mark.heavy

LUNG = (1000 - 860) / 1400
GRIDS = {"as usual": np.eye(3), "turned": np.diag([-1, -1, 1]), "oblique": rotation(12, 5, -8)}
GOOD, BAD = Check(0.9, 1.0, 70), Check(0.1, 0.5, 70)


class MeanOfRegion:
    """An ensemble of three seeds whose probability is the mean of the patch in one region."""

    manifest = make_manifest()

    def __init__(self, region):
        self.region = region
        self.asked = 0

    def member_probabilities(self, patches):
        self.asked += len(patches)
        return np.repeat([[patch[self.region].mean()] for patch in patches], 3, axis=1)

    def vote(self, by_member):
        return by_member @ self.manifest.vote_weights


def inner(cell):
    """The middle of a cell, beyond what its neighbours' fading edges reach."""
    return tuple(slice(part.start + 3, part.stop - 3) for part in cell_slices(cell))


@pytest.mark.parametrize("cell", [(3, 3, 3), (3, 6, 1)], ids=["nodule", "wall"])
def test_the_map_lights_up_where_the_network_looks_and_only_there(cell):
    patch = make_patch()
    region = inner(cell)
    ensemble = MeanOfRegion(region)
    found = explain(patch, MASK, ensemble, [MAP])
    probability = patch[region].mean()
    field = found.changes(probability)
    assert found.parts == {}
    assert field[region].mean() == pytest.approx(probability - LUNG, abs=0.03)
    elsewhere = field.copy()
    elsewhere[cell_slices(cell)] = 0
    assert abs(elsewhere).max() < 0.02 * field[region].mean()
    assert ensemble.asked == len(found.cells)


def test_a_region_of_lung_gives_a_dark_map():
    patch = make_patch()
    region = inner((3, 1, 3))
    found = explain(patch, MASK, MeanOfRegion(region), [MAP])
    assert (3, 1, 3) not in found.cells
    assert abs(found.changes(patch[region].mean())).max() < 1e-3


def test_parts_move_the_networks_that_look_at_them():
    patch = make_patch()
    core = np.zeros((SIZE,) * 3, bool)
    core[29:35, 29:35, 29:35] = True
    in_nodule, in_wall = (explain(patch, MASK, MeanOfRegion(where), PARTS).parts for where in (core, NEAR_WALL))
    glass = (1000 - 550) / 1400
    tissue = patch[core].mean()
    assert in_nodule[SOLID] == pytest.approx(glass, abs=0.02)
    assert [in_nodule[part] for part in (RIM, PLEURA)] == pytest.approx([tissue] * 2, abs=0.02)
    assert in_wall[PLEURA] == pytest.approx(LUNG, abs=0.04)
    for part in (SOLID, RIM, CORE):
        assert in_wall[part] == pytest.approx(patch[NEAR_WALL].mean(), abs=0.02)


def test_only_what_is_wanted_is_scored():
    ensemble = MeanOfRegion(MASK)
    assert [*explain(make_patch(), MASK, ensemble, [RIM, SOLID]).parts] == [SOLID, RIM]
    assert ensemble.asked == 2


def test_without_a_mask_there_is_the_map_alone():
    found = explain(make_patch(), None, MeanOfRegion(MASK), WHAT)
    assert found.parts == {}
    assert (3, 3, 3) in found.cells


def test_the_vote_is_the_ensembles():
    class Squared(MeanOfRegion):
        def vote(self, by_member):
            return super().vote(by_member) ** 2

    plain, squared = (explain(make_patch(), MASK, make(MASK), [RIM]).parts[RIM] for make in (MeanOfRegion, Squared))
    assert squared == pytest.approx(plain**2)


@pytest.mark.parametrize("direction", GRIDS.values(), ids=GRIDS)
def test_a_mask_comes_back_to_the_patch(direction):
    volume = make_volume(direction=direction)
    point = middle(volume, (0.3, -0.2, 0.4))
    shape = ball(14, (3.0, -2.0, 1.5))
    found = mask_on_patch(volume, point, nodule_mask(volume, point, shape))
    truth = shape > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97
    assert found.sum() == pytest.approx(truth.sum(), rel=0.04)


def test_an_empty_mask_is_none():
    volume = make_volume()
    point = middle(volume)
    assert mask_on_patch(volume, point, nodule_mask(volume, point, np.zeros((SIZE,) * 3))) is None


@pytest.fixture
def case(tmp_path):
    """A CT's nodule, its patch and mask, and an ensemble with a folder."""
    volume = make_volume()
    point = tuple(middle(volume))
    ensemble = MeanOfRegion(MASK)
    ensemble.manifest = replace(make_manifest(), folder=tmp_path)
    predictions = [NodulePrediction(Nodule("n", point), 0.5, (0.5,) * 3)]
    return volume, predictions, [nodule_mask(volume, point, ball(12))], make_patch()[None], ensemble


def test_what_has_passed_is_explained(case):
    *_, ensemble = case
    write_checks(ensemble.manifest, {RIM: GOOD, SOLID: BAD, MAP: BAD})
    (found,) = explanations_of(*case)
    assert ([*found.parts], found.cells, ensemble.asked) == ([RIM], {}, 1)


@pytest.mark.parametrize("checks", [None, {RIM: BAD, MAP: BAD}])
def test_where_nothing_has_passed_nothing_is_scored(case, checks):
    *_, ensemble = case
    if checks:
        write_checks(ensemble.manifest, checks)
    assert explanations_of(*case) == [None]
    assert ensemble.asked == 0


def test_an_ensemble_without_decoders_gives_maps(case):
    volume, predictions, _, patches, ensemble = case
    write_checks(ensemble.manifest, dict.fromkeys(WHAT, GOOD))
    (found,) = explanations_of(volume, predictions, [], patches, ensemble)
    assert found.parts == {}
    assert found.cells
