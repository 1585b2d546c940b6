"""A phantom patient with scans and lesions, drawn only from a seed and the patient's number."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from hashlib import sha256

import numpy as np

from nodulemc.arrays import Array
from nodulemc.geometry import Grid
from nodulemc.limits import MAX_PHANTOM_PATIENTS
from nodulemc.phantom import malignancy
from nodulemc.phantom.anatomy import Anatomy
from nodulemc.phantom.malignancy import Traits
from nodulemc.phantom.nodule import Nodule, sample_nodule
from nodulemc.phantom.render import PlacedNodule, Scene
from nodulemc.phantom.scanner import IN_PLANE_VOXELS, Scanner, sample_scanner
from nodulemc.phantom.sites import Site, choose_site
from nodulemc.phantom.vessels import LungTrees, grow_trees

FIRST_YEAR = 1999
# How many patients have one nodule, two, and so on, as in LUNA25's table. More than eight are left out.
_LESION_COUNTS = np.array([1307, 427, 179, 95, 49, 30, 19, 8])
_MALE_SHARE = 0.6
_MARGIN_MM = (14.0, 10.0)


class _Stream(IntEnum):
    """The purposes of a patient's random streams. Each stream draws independently of the others."""

    HISTORY = 0
    ANATOMY = 1
    VESSELS = 2
    SITE = 3
    FORM = 4
    SCAN = 5
    NOISE = 6
    TEXTURE = 7
    CONTROL = 8


@dataclass(frozen=True)
class Lesion:
    """A lesion over the years.

    Attributes:
        number: The number of the lesion within the patient, from 1.
        first_scan, last_scan: The first and last scan that show it.
        first_diameter: The diameter in mm, in the first of them.
        label: 1 malignant, 0 benign. The same in every scan.
        doubling_days: The volume doubling time. None if the lesion does not grow.
    """

    number: int
    first_scan: int
    last_scan: int
    first_diameter: float
    traits: Traits
    label: int
    doubling_days: float | None

    @property
    def largest(self) -> float:
        """The diameter in mm in the last scan."""
        return self.diameter(self.last_scan)

    def diameter(self, scan: int) -> float:
        """Return the diameter in mm in a scan that shows the lesion."""
        if self.doubling_days is None:
            return self.first_diameter
        return self.first_diameter * float(malignancy.growth(scan - self.first_scan, self.doubling_days))


def identifier_of(seed: int, index: int) -> int:
    """Return the PatientID of a patient (from 0) of a seed's cohort."""
    return (seed + 1) * (MAX_PHANTOM_PATIENTS + 1) + index + 1


class Patient:
    """Patient ``index`` of the cohort of ``seed``. Body and scenes are made on first use."""

    def __init__(self, seed: int, index: int) -> None:
        self.seed = seed
        self.index = index
        rng = self._rng(_Stream.HISTORY)
        # The identifier is unique over seeds, so that cohorts can be joined.
        self.identifier = identifier_of(seed, index)
        self.male = bool(rng.random() < _MALE_SHARE)
        count = 1 + int(rng.choice(3, p=malignancy.SCAN_COUNT_FREQUENCY))
        self.first_year = FIRST_YEAR + int(rng.integers(0, 4 - count))
        self.age = int(np.clip(round(rng.normal(62.5, 5)), 55, 74))
        lesions = 1 + int(rng.choice(len(_LESION_COUNTS), p=_LESION_COUNTS / _LESION_COUNTS.sum()))
        self.lesions = [_sample_lesion(rng, number, count) for number in range(1, lesions + 1)]
        # As in LUNA25, only scans that show a nodule belong to the cohort.
        self.scans = [k for k in range(count) if any(x.first_scan <= k <= x.last_scan for x in self.lesions)]

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.index, *stream)))

    def shown(self, scan: int) -> list[Lesion]:
        """Return the lesions that a scan shows."""
        return [lesion for lesion in self.lesions if lesion.first_scan <= scan <= lesion.last_scan]

    def series_uid(self, scan: int) -> str:
        """Return a DICOM UID under the UUID root 2.25 (DICOM PS3.5, B.2)."""
        digest = sha256(f"nodulemc phantom {self.seed} {self.index} {scan}".encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    @cached_property
    def anatomy(self) -> Anatomy:
        """The patient's thorax."""
        return Anatomy(self._rng(_Stream.ANATOMY), male=self.male)

    @cached_property
    def trees(self) -> LungTrees:
        """Vessels and bronchi."""
        return grow_trees(self.anatomy, self._rng(_Stream.VESSELS))

    @cached_property
    def sites(self) -> list[Site]:
        """Every lesion's site in the procedural lungs, in order."""
        sites: list[Site] = []
        for lesion in self.lesions:
            taken = [(site.point, other.largest) for site, other in zip(sites, self.lesions, strict=False)]
            rng = self.site_rng(lesion)
            attachment = lesion.traits.attachment
            sites.append(choose_site(self.anatomy, self.trees.vessels, attachment, lesion.largest, taken, rng))
        return sites

    def site_rng(self, lesion: Lesion) -> np.random.Generator:
        """Return the stream that draws a lesion's site, in procedural and in real lungs."""
        return self._rng(_Stream.SITE, lesion.number)

    def control_rng(self, scan: int, lesion: Lesion) -> np.random.Generator:
        """Return the stream that draws whether a benign nodule of a scan is a control."""
        return self._rng(_Stream.CONTROL, scan, lesion.number)

    def form(self, lesion: Lesion, normal: Array) -> Nodule:
        """Return a lesion's form; ``normal`` (3,) is that of its site."""
        return sample_nodule(self._rng(_Stream.FORM, lesion.number), lesion.traits, normal)

    def scanner(self, scan: int) -> Scanner:
        """Return the scanner and settings of a scan."""
        return sample_scanner(self._rng(_Stream.SCAN, scan), 2 * self.anatomy.half_width)

    def scene(self, scan: int) -> Scene:
        """Return everything that a scan shows, with the lesions of `shown` in their order."""
        scanner = self.scanner(scan)
        rng = self._rng(_Stream.SCAN, scan, 1)
        stretch = 1 + rng.normal(0, (0.006, 0.008, 0.015))  # the depth of breath
        offset = np.round(rng.normal(0, (6, 8, 0)) + (0, rng.uniform(-160, 40), rng.uniform(-250, 50)), 2)
        bottom, top = (-158.0 - _MARGIN_MM[0]), (self.anatomy.apex + _MARGIN_MM[1])
        depth = int(np.ceil((top - bottom) * stretch[2] / scanner.spacing[2]))
        half = scanner.spacing[0] * (IN_PLANE_VOXELS - 1) / 2
        shift = np.append(rng.normal(0, 3, 2), 0.0)
        origin = offset + (-half, -half, bottom * stretch[2]) + shift
        nodules = []
        for lesion in self.shown(scan):
            site = self.sites[lesion.number - 1]
            nodule = self.form(lesion, site.normal)
            diameter = lesion.diameter(scan)
            centroid = site.centroid(nodule, diameter) * stretch + offset
            nodules.append(PlacedNodule(nodule, tuple(centroid.tolist()), diameter))
        return Scene(
            anatomy=self.anatomy,
            trees=self.trees,
            nodules=tuple(nodules),
            scanner=scanner,
            grid=Grid((IN_PLANE_VOXELS, IN_PLANE_VOXELS, depth), scanner.spacing, tuple(np.round(origin, 3).tolist())),
            offset=offset,
            stretch=stretch,
            texture_key=(self.seed, self.index, int(_Stream.TEXTURE)),
            noise_key=self.noise_key(scan),
        )

    def noise_key(self, scan: int) -> tuple[int, ...]:
        """Return the seed of a scan's noise."""
        return (self.seed, self.index, int(_Stream.NOISE), scan)


def _sample_lesion(rng: np.random.Generator, number: int, scans: int) -> Lesion:
    first = 0
    if scans > 1 and rng.random() >= malignancy.SEEN_AT_FIRST_SCAN:
        first = int(rng.integers(1, scans))
    last = first if rng.random() < malignancy.SEEN_ONCE else scans - 1
    diameter = malignancy.sample_diameter(rng)
    traits = malignancy.sample_traits(rng, diameter)
    label = int(rng.random() < malignancy.first_sight_probability(diameter, traits))
    doubling = malignancy.sample_doubling_days(rng, traits.density) if label else None
    return Lesion(number, first, last, diameter, traits, label, doubling)
