"""Phantom nodules without a trait that bears on malignancy: the new picture, and the change of the known probability.

Each patient here has one nodule of every kind, drawn as in a cohort, but in equal numbers.
"""

from dataclasses import replace
from math import log

import numpy as np

from nodulemc.phantom.malignancy import RANGE_MM, Traits, probability, sample_diameter, sample_traits
from nodulemc.phantom.nodule import Nodule
from nodulemc.phantom.patient import Lesion, Patient
from nodulemc.phantom.render import PlacedNodule, Scene

KINDS = SPICULATED, PLEURAL, *_ = ("spiculated", "pleura", "part-solid", "ground-glass", "solid")
REMOVALS = SPICULES, DENSITY, CONTACT, SIZE = ("spicules", "density", "contact", "size")
_FREE_MM = 8.0  # the distance from the pleura


def kind_of(traits: Traits) -> str | None:
    """Return one of ``KINDS``: spiculated, at the pleura, or another of a density. None for mixtures and fissures."""
    spiculated, pleural = traits.margin == "spiculated", traits.attachment == "pleura"
    if traits.attachment == "fissure" or (spiculated and pleural):
        return None
    return SPICULATED if spiculated else PLEURAL if pleural else traits.density


def patient_of_all_kinds(seed: int, index: int) -> Patient:
    """Return patient ``index`` of a seed's cohort with other lesions, in one scan: each of ``KINDS``, in order."""
    patient = Patient(seed, index)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    drawn = [_drawn(rng, kind) for kind in KINDS]
    patient.lesions = [
        Lesion(k, 0, 0, diameter, traits, 0, None) for k, (diameter, traits) in enumerate(drawn, start=1)
    ]
    patient.scans = [0]
    return patient


def _drawn(rng: np.random.Generator, kind: str) -> tuple[float, Traits]:
    while True:
        diameter = sample_diameter(rng)
        traits = sample_traits(rng, diameter)
        if kind_of(traits) == kind:
            return diameter, traits


def known_move(lesion: Lesion, removal: str) -> float | None:
    """Return the change of the known log odds. None if the remaining nodule does not occur, so that it is not known.

    Args:
        lesion: A nodule that is one of ``KINDS``.
        removal: One of ``REMOVALS``. A nodule without this trait stays as it is.
    """
    traits, diameter = lesion.traits, lesion.first_diameter
    if removal in (DENSITY, SIZE) and traits.margin == "spiculated":  # ground glass and small nodules have no spicules
        return None
    if removal == SIZE and traits.density != "solid":  # the core of another nodule looks solid
        return None
    left = {
        SPICULES: replace(traits, margin="smooth" if traits.margin == "spiculated" else traits.margin),
        DENSITY: replace(traits, density="ground-glass", calcification="none"),
        CONTACT: replace(traits, attachment="none" if traits.attachment == "pleura" else traits.attachment),
        SIZE: traits,
    }[removal]
    return _log_odds(RANGE_MM[0] if removal == SIZE else diameter, left) - _log_odds(diameter, traits)


def _log_odds(diameter: float, traits: Traits) -> float:
    known = probability(diameter, traits)
    return log(known / (1 - known))


def scene_without(scene: Scene, index: int, removal: str) -> Scene:
    """Return a scan with a trait removed from one of its nodules.

    Args:
        scene: The scan with the nodule.
        index: The index of the nodule.
        removal: One of ``REMOVALS``.
    """
    placed = scene.nodules[index]
    left = PlacedNodule(_without(placed.nodule, removal), placed.centroid, placed.diameter)
    if removal == SIZE:
        left = replace(left, diameter=RANGE_MM[0])
    elif removal == CONTACT and placed.nodule.plane is not None:
        outwards, _ = placed.nodule.plane
        left = replace(left, centroid=tuple(placed.centroid - outwards * (placed.diameter / 2 + _FREE_MM)))
    nodules = [left if k == index else other for k, other in enumerate(scene.nodules)]
    return replace(scene, nodules=tuple(nodules))


def _without(nodule: Nodule, removal: str) -> Nodule:
    traits = nodule.traits
    if removal == SPICULES and traits.margin == "spiculated":
        return replace(
            nodule,
            traits=replace(traits, margin="smooth"),
            bump_height=np.zeros_like(nodule.bump_height),
            spicules=np.zeros((0, 3)),
            spicule_length=np.zeros(0),
        )
    if removal == DENSITY:
        return replace(nodule, traits=replace(traits, density="ground-glass", calcification="none"))
    if removal == CONTACT:
        return replace(nodule, plane=None)
    return nodule
