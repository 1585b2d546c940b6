from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest

from nodulemc.phantom.malignancy import Traits, first_sight_probability, probability
from nodulemc.phantom.patient import Lesion
from nodulemc.phantom.removal import (
    CONTACT,
    DENSITY,
    KINDS,
    REMOVALS,
    SIZE,
    SPICULES,
    kind_of,
    known_move,
    patient_of_all_kinds,
    scene_without,
)  # fmt: skip
from nodulemc.phantom.render import draw_nodules


def lesion(margin="smooth", density="solid", calcification="none", attachment="none", diameter=9.0):
    return Lesion(1, 0, 0, diameter, Traits(margin, density, calcification, attachment), 0, None)


@pytest.fixture(scope="module")
def patient():
    return patient_of_all_kinds(3, 0)


@pytest.fixture(scope="module")
def scene(patient):
    return patient.scene(0)


def drawn(scene, k):
    return draw_nodules(scene)[k]


def test_one_nodule_of_each_kind_in_one_scan(patient, scene):
    kinds = [kind_of(other.traits) for other in patient.lesions]
    assert kinds == [*KINDS]
    assert Counter(kinds).most_common(1) == [("spiculated", 1)]
    assert len(scene.nodules) == len(patient.shown(0)) == len(KINDS)
    again = patient_of_all_kinds(3, 0)
    assert again.lesions == patient.lesions != patient_of_all_kinds(3, 1).lesions


# Gurney's likelihood ratio of spiculated over smooth edges, Xu's of a contact with the pleura: the posterior moves by
# them but for growth, which differs a little by what a nodule may have been before.
@pytest.mark.parametrize(
    ("having", "removal", "ratio"),
    [
        (lesion(margin="spiculated"), SPICULES, 0.30 / 5.54),
        (lesion(margin="spiculated", density="part-solid"), SPICULES, 0.30 / 5.54),
        (lesion(attachment="pleura"), CONTACT, 1 / 0.3),
        (lesion(density="part-solid"), DENSITY, (0.18 / 0.82) / (0.63 / 0.37)),
        (lesion(), DENSITY, (0.18 / 0.82) / (0.07 / 0.93)),
        (lesion(calcification="central"), DENSITY, 100 * (0.18 / 0.82) / (0.07 / 0.93)),
    ],
)
def test_known_moves_are_the_published_ratios(having, removal, ratio):
    assert known_move(having, removal) == pytest.approx(log(ratio), abs=0.35)


def test_the_size_moves_to_that_of_the_least_nodule():
    having = lesion(diameter=12.0)
    p, least = (probability(diameter, having.traits) for diameter in (12.0, 4.0))
    assert known_move(having, SIZE) == pytest.approx(log(least / (1 - least)) - log(p / (1 - p)))
    first = [first_sight_probability(diameter, having.traits) for diameter in (4.0, 12.0)]
    assert known_move(having, SIZE) < log(first[0] / first[1]) < 0


@pytest.mark.parametrize(
    ("having", "removal"),
    [(lesion(), SPICULES), (lesion(margin="lobulated"), SPICULES), (lesion(attachment="vessel"), CONTACT),
     (lesion(density="ground-glass"), DENSITY)],
)  # fmt: skip
def test_what_is_not_there_moves_nothing(having, removal):
    assert known_move(having, removal) == 0


@pytest.mark.parametrize(
    ("having", "removal"),
    [(lesion(margin="spiculated"), DENSITY), (lesion(margin="spiculated"), SIZE),
     (lesion(density="ground-glass"), SIZE), (lesion(density="part-solid"), SIZE)],
)  # fmt: skip
def test_what_does_not_occur_is_not_known(having, removal):
    assert known_move(having, removal) is None


def test_mixtures_are_no_kind():
    assert kind_of(lesion(attachment="fissure").traits) is None
    assert kind_of(lesion(margin="spiculated", attachment="pleura").traits) is None


def test_a_nodule_without_spicules_keeps_its_volume(scene):
    k = KINDS.index("spiculated")
    before, after = drawn(scene, k), drawn(scene_without(scene, k, SPICULES), k)
    assert int(after.mask.sum()) == pytest.approx(int(before.mask.sum()), rel=0.08)
    assert after.cover.sum() < 0.9 * before.cover.sum()


def test_a_nodule_without_its_density_is_ground_glass(scene):
    k = KINDS.index("part-solid")
    before, after = drawn(scene, k), drawn(scene_without(scene, k, DENSITY), k)
    assert before.cover.max() > 0.8
    assert after.cover.max() < 0.5
    np.testing.assert_array_equal(after.mask, before.mask)


def test_a_nodule_without_its_size_has_that_of_the_least(scene):
    k = KINDS.index("solid")
    after = drawn(scene_without(scene, k, SIZE), k)
    volume = after.mask.sum() * np.prod(scene.grid.spacing)
    assert volume == pytest.approx(np.pi / 6 * 4**3, rel=0.25)


def test_a_nodule_without_its_pleura_is_whole_and_lies_inwards(scene):
    k = KINDS.index("pleura")
    placed = scene.nodules[k]
    left = scene_without(scene, k, CONTACT).nodules[k]
    outwards, _ = placed.nodule.plane
    moved = np.subtract(placed.centroid, left.centroid)
    assert moved @ outwards == pytest.approx(np.linalg.norm(moved)) == pytest.approx(placed.diameter / 2 + 8)
    assert left.nodule.plane is None
    assert left.diameter == placed.diameter


@pytest.mark.parametrize("removal", REMOVALS)
def test_other_nodules_stay(scene, removal):
    left = scene_without(scene, 2, removal)
    assert left.nodules[:2] + left.nodules[3:] == scene.nodules[:2] + scene.nodules[3:]
    assert replace(left, nodules=scene.nodules) == scene
