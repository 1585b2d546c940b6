"""The phantom's known truth: the nodules that occur, and how likely each is malignant (docs/phantoms.md).

The log odds of malignancy of a lesion at first sight are a sum of published terms:

- size: the Brock (PanCan) model's term, McWilliams et al., N Engl J Med 2013;369:910-919;
- margin: likelihood ratios of smooth, lobulated and spiculated edges, Gurney, Radiology 1993;186:405-413;
- density: malignancy rates of solid (7 %), part-solid (63 %) and nonsolid (18 %) nodules in ELCAP, Henschke et al., AJR
  2002;178:1053-1057;
- benign calcification: likelihood ratio 0.01 (Gurney 1993);
- attachment: no perifissural nodule became a cancer in Ahn et al., Radiology 2010;254:949-956; nodules attached to the
  pleura seldom do, Xu et al., Radiology 2009;250:264-272.

Malignant lesions grow from scan to scan, and benign ones do not. So a nodule's size in a later scan says more than at
first sight. `probability` is the exact posterior of one scan's nodule, given everything that its image can show.
"""

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import ArrayLike

from nodulemc.arrays import Array

DENSITIES = ("solid", "part-solid", "ground-glass")
MARGINS = ("smooth", "lobulated", "spiculated")
CALCIFICATIONS = ("none", "central", "diffuse", "laminated")
ATTACHMENTS = ("none", "vessel", "pleura", "fissure")

# The diameter at first sight is log-normal. It is limited to sizes that screening reports (NLST: 4 mm and more) and
# that a 50 mm patch can show.
MEDIAN_MM = 7.0
LOG_SD = 0.38
RANGE_MM = (4.0, 20.0)
# Below this diameter spicules cannot be recognised, and subsolid nodules are rare (ELCAP: 9 of 136 up to 5 mm).
SMALL_MM = 5.0
_DENSITY_FREQUENCY = {True: (0.93, 0.015, 0.055), False: (0.80, 0.06, 0.14)}
_MARGIN_FREQUENCY = {True: (0.82, 0.18, 0.0), False: (0.64, 0.22, 0.14)}
_GROUND_GLASS_MARGIN_FREQUENCY = (0.70, 0.30, 0.0)
_CALCIFIED = 0.15
_ATTACHMENT_FREQUENCY = (0.50, 0.15, 0.17, 0.18)

_SIZE_COEFFICIENT = -5.3854
_SIZE_OFFSET = 1.58113883
_MARGIN_LOG_ODDS = dict(zip(MARGINS, (0.0, log(0.74 / 0.30), log(5.54 / 0.30)), strict=True))
_DENSITY_LOG_ODDS = {
    "solid": 0.0,
    "part-solid": log(0.63 / 0.37) - log(0.07 / 0.93),
    "ground-glass": log(0.18 / 0.82) - log(0.07 / 0.93),
}
_CALCIFIED_LOG_ODDS = log(0.01)
_ATTACHMENT_LOG_ODDS = {"none": 0.0, "vessel": 0.0, "pleura": log(0.3), "fissure": log(0.01)}
# This value sets the share of malignant rows to LUNA25's 9.0 %.
_INTERCEPT = -5.66

# Volume doubling times of malignant nodules in days are log-normal around these medians. Subsolid: means of 598 and
# 848 in PMC5945695. Solid: between its mean of 267 (surgical) and 518 among screened cancers (Lindell et al.,
# Radiology 2007;242:555-562). None is faster than _FASTEST_DAYS, so that all nodules stay within a patch.
_DOUBLING_DAYS = {"solid": 450.0, "part-solid": 600.0, "ground-glass": 850.0}
_DOUBLING_LOG_SD = 0.35
_FASTEST_DAYS = 200.0
_YEAR_DAYS = 365.25

# Scans per patient are as in LUNA25's table. A lesion may appear after the first scan, and may be seen only once.
SCAN_COUNT_FREQUENCY = (880 / 2120, 709 / 2120, 531 / 2120)
SEEN_AT_FIRST_SCAN = 0.7
SEEN_ONCE = 0.25
_QUADRATURE = (np.arange(64) + 0.5) / 64


@dataclass(frozen=True)
class Traits:
    """The traits of a nodule, besides its size, that bear on malignancy; each is one of the names above."""

    margin: str
    density: str
    calcification: str
    attachment: str


def sample_diameter(rng: np.random.Generator) -> float:
    """Draw the diameter at first sight in mm: that of a sphere with the nodule's volume."""
    while True:
        diameter = MEDIAN_MM * np.exp(LOG_SD * rng.standard_normal())
        if RANGE_MM[0] <= diameter <= RANGE_MM[1]:
            return float(diameter)


def sample_traits(rng: np.random.Generator, diameter: float) -> Traits:
    """Draw traits for a nodule of this diameter (mm) at first sight."""
    attachment = ATTACHMENTS[rng.choice(4, p=_ATTACHMENT_FREQUENCY)]
    if attachment == "fissure":  # intrapulmonary lymph nodes: solid, smooth, not calcified (Ahn 2010)
        return Traits("smooth", "solid", "none", attachment)
    density = DENSITIES[rng.choice(3, p=_DENSITY_FREQUENCY[diameter < SMALL_MM])]
    margin = MARGINS[rng.choice(3, p=_margin_frequency(density, diameter))]
    calcification = "none"
    if _may_calcify(margin, density) and rng.random() < _CALCIFIED:
        calcification = CALCIFICATIONS[rng.integers(1, len(CALCIFICATIONS))]
    return Traits(margin, density, calcification, attachment)


def first_sight_probability(diameter: Array | float, traits: Traits) -> Array:
    """Return the probability that a lesion is malignant, from its diameter (mm, any shape) when first seen."""
    log_odds = (
        _INTERCEPT
        + _SIZE_COEFFICIENT * ((np.asarray(diameter) / 10) ** -0.5 - _SIZE_OFFSET)
        + _MARGIN_LOG_ODDS[traits.margin]
        + _DENSITY_LOG_ODDS[traits.density]
        + (_CALCIFIED_LOG_ODDS if traits.calcification != "none" else 0.0)
        + _ATTACHMENT_LOG_ODDS[traits.attachment]
    )
    return 1 / (1 + np.exp(-log_odds))


def sample_doubling_days(rng: np.random.Generator, density: str) -> float:
    """Draw the volume doubling time of a malignant lesion in days."""
    while True:
        days = _DOUBLING_DAYS[density] * np.exp(_DOUBLING_LOG_SD * rng.standard_normal())
        if days >= _FASTEST_DAYS:
            return float(days)


def growth(years: float, doubling_days: Array | float) -> Array:
    """Return the factor by which a diameter grows."""
    return 2 ** (years * _YEAR_DAYS / (3 * np.asarray(doubling_days)))


def probability(diameter: float, traits: Traits) -> float:
    """Return the probability that a nodule seen at this diameter (mm) is malignant, from a scan of unknown number.

    It follows from Bayes' rule over the years since first sight and, for malignant lesions, the doubling time. The
    labels follow it, row by row. No reader of single scans can rank better.
    """
    density_here = _first_sight_density(np.array([diameter]), traits)
    benign = float(density_here[0] * (1 - first_sight_probability(diameter, traits)))
    malignant = 0.0
    for years, weight in enumerate(years_since_first_sight()):
        factor = growth(years, _doubling_quantiles(traits.density))
        before = diameter / factor
        malignant += weight * float(
            np.mean(_first_sight_density(before, traits) * first_sight_probability(before, traits) / factor)
        )
    return malignant / (malignant + benign)


def expected_auc(scores: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the expected AUC of a reader's scores over the drawing of the labels, without an empirical AUC's chance.

    Args:
        scores: (N,) the reader's scores, higher for malignant.
        probabilities: (N,) the cohort's known probabilities, in the same order.

    Returns:
        The expected share of correctly ranked malignant-benign pairs (ties count half).
    """
    p = np.asarray(probabilities, float)
    _, group = np.unique(np.asarray(scores, float), return_inverse=True)
    malignant, benign, self_pairs = (np.bincount(group, weights) for weights in (p, 1 - p, p * (1 - p)))
    benign_before = np.cumsum(benign) - benign
    right = malignant * benign_before + 0.5 * (malignant * benign - self_pairs)
    pairs = malignant.sum() * benign.sum() - self_pairs.sum()
    return float(right.sum() / pairs)


def best_auc(probabilities: ArrayLike) -> float:
    """Return the best expected AUC that any reader can reach: that of the known probabilities (N,) themselves."""
    return expected_auc(probabilities, probabilities)


def _margin_frequency(density: str, diameter: float) -> tuple[float, ...]:
    return _GROUND_GLASS_MARGIN_FREQUENCY if density == "ground-glass" else _MARGIN_FREQUENCY[diameter < SMALL_MM]


def _may_calcify(margin: str, density: str) -> bool:
    return density == "solid" and margin != "spiculated"


def _trait_frequency(traits: Traits, small: bool) -> float:
    """Return how often these traits occur among nodules below SMALL_MM, or from it on.

    The pattern of a calcification is not counted.
    """
    attached = _ATTACHMENT_FREQUENCY[ATTACHMENTS.index(traits.attachment)]
    if traits.attachment == "fissure":
        return attached
    density = _DENSITY_FREQUENCY[small][DENSITIES.index(traits.density)]
    diameter = RANGE_MM[0] if small else SMALL_MM
    margin = _margin_frequency(traits.density, diameter)[MARGINS.index(traits.margin)]
    calcified = 1.0
    if _may_calcify(traits.margin, traits.density):
        calcified = 1 - _CALCIFIED if traits.calcification == "none" else _CALCIFIED
    return attached * density * margin * calcified


def _first_sight_density(diameter: Array, traits: Traits) -> Array:
    """Return the unnormalised joint density of a diameter (mm) at first sight and the traits."""
    normal = np.exp(-0.5 * (np.log(diameter / MEDIAN_MM) / LOG_SD) ** 2) / diameter
    frequency = np.where(diameter < SMALL_MM, _trait_frequency(traits, True), _trait_frequency(traits, False))
    return np.where((diameter >= RANGE_MM[0]) & (diameter <= RANGE_MM[1]), normal * frequency, 0.0)


def _doubling_quantiles(density: str) -> Array:
    """Return midpoint quantiles of the doubling time, by inverting a fine table of its truncated log-normal."""
    days = np.exp(np.linspace(np.log(_FASTEST_DAYS), np.log(_DOUBLING_DAYS[density]) + 5 * _DOUBLING_LOG_SD, 2000))
    weight = np.exp(-0.5 * (np.log(days / _DOUBLING_DAYS[density]) / _DOUBLING_LOG_SD) ** 2)
    cumulative = np.cumsum(weight)
    quadrature: Array = np.interp(_QUADRATURE, cumulative / cumulative[-1], days)
    return quadrature


def years_since_first_sight() -> Array:
    """Return the shares of all rows seen 0, 1 and 2 years after the lesion's first scan, under `cohort`'s schedule."""
    rows = np.zeros(3)
    for scans, frequency in enumerate(SCAN_COUNT_FREQUENCY, start=1):
        for first in range(scans):
            if scans == 1:
                appears = 1.0
            else:
                appears = SEEN_AT_FIRST_SCAN if first == 0 else (1 - SEEN_AT_FIRST_SCAN) / (scans - 1)
            rows[0] += frequency * appears
            rows[1 : scans - first] += frequency * appears * (1 - SEEN_ONCE)
    shares: Array = rows / rows.sum()
    return shares
