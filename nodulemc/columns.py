"""The columns of tables: LUNA25's names, which this program uses, and what others call the same. Needs no package."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nodulemc.ratings import HIGHEST, READERS

UID, PATIENT, ANNOTATION, LABEL = "SeriesInstanceUID", "PatientID", "AnnotationID", "label"
# A label as tables write it: 1 is malignant, 0 benign; pandas writes whole numbers as decimals where a column has gaps.
LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
SOURCE_UID = "source_series_uid"  # of a cut-out's scan, where the cut-out goes by another SeriesInstanceUID
AGE, GENDER = "Age_at_StudyDate", "Gender"
COORDINATES = ("CoordX", "CoordY", "CoordZ")  # world x, y, z in mm, LPS
# Columns of luna25_public_training_development_data.csv (LUNA25, https://luna25.grand-challenge.org).
LUNA25 = (
    PATIENT, UID, "StudyDate", *COORDINATES, "LesionID", ANNOTATION, "NoduleID", LABEL, AGE, GENDER,
)  # fmt: skip
PATHS = ("ct", "path", "scan")
POINTS = "points"
# What a column holds is told by its name, however that is spelt: these are whole numbers or words, but never measures.
IDENTIFIERS = (PATIENT, UID, "LesionID", ANNOTATION, "NoduleID")
SEED_PREFIX = "seed_"
# What predictions say of their ensemble: SHA-256 of its ensemble.json, what it was trained on in words, how it was
# calibrated; and whether it was trained on the nodule's case (see nodulemc.ensemble.trained_cases).
ENSEMBLE, TRAINED_ON, CALIBRATION, SEEN_IN_TRAINING = "ensemble", "trained_on", "calibration", "seen_in_training"
ATTRIBUTE_PREFIX = "attribute_"  # what an ensemble tells; without it, what readers have rated
# What measuring, risk models and comparing with a prior scan add.
MEASURED = (
    "volume_mm3", "long_axis_mm", "short_axis_mm", "size_mm", "effective_diameter_mm", "mean_hu", "mass_mg",
    "solid_volume_mm3", "solid_long_axis_mm", "solid_short_axis_mm", "point_distance_mm",
    "brock_full", "brock_parsimonious", "mayo", "herder", "prior_volume_mm3", "interval_days", "volume_change_percent",
    "volume_doubling_time_days", "prior_distance_mm", "registration_similarity",
)  # fmt: skip
LUNG_RADS, RISK_MISSING = "lung_rads_size", "risk_missing"
_NUMBERS = (*COORDINATES, LABEL, "probability", AGE, "diameter_mm", READERS, *HIGHEST, *MEASURED)
# Other names, best first. LUNA16 (https://luna16.grand-challenge.org) has seriesuid, coordX, coordY, coordZ; its
# ``class`` says whether there is a nodule, not what kind, so it is no label.
_OTHERS = {
    UID: ("seriesuid",),
    PATIENT: ("patient",),
    ANNOTATION: ("name", "id"),
    AGE: ("age",),
    GENDER: ("sex",),
    **{column: (column[-1],) for column in COORDINATES},
}
# Beside age and sex, what the risk models need and nobody measures; spiculation is among the ratings' names.
_CLINICAL = (
    "smoking_status", "family_history", "emphysema", "cancer_history", "nodule_count", "type", "upper_lobe",
    "fdg_uptake",
)  # fmt: skip
_KNOWN = (*LUNA25, *PATHS, POINTS, "probability", "fold", "diameter_mm", READERS, *HIGHEST, *_CLINICAL)


def canonical(header: Sequence[str]) -> list[str]:
    """The header with every column that is known by the name that this program uses; the others as they are.

    Upper case, blanks, ``_`` and ``-`` make no difference. Of several columns that may be the same, the one with the
    best name is taken, and the others stay what they are.
    """
    names, keys = list(header), [_key(name) for name in header]
    for column in _KNOWN:
        candidates = (_key(name) for name in (column, *_OTHERS.get(column, ())))
        best = next((key for key in candidates if key in keys), None)
        names = [column if key == best else name for name, key in zip(names, keys, strict=True)]
    return names


def two_points(columns: Sequence[str]) -> bool:
    """Whether a header that ``canonical`` gave states coordinates twice, as CoordX, CoordY, CoordZ and as x, y, z."""
    keys = [_key(name) for name in columns]
    return all(_key(name) in keys for column in COORDINATES for name in (column, *_OTHERS[column]))


def is_number(column: str) -> bool:
    """Whether the cells of a column that ``canonical`` named are measures."""
    return column in _NUMBERS or column.startswith((SEED_PREFIX, ATTRIBUTE_PREFIX))


def tally(labels: Iterable[int | None]) -> str:
    """Return in words how many nodules are malignant and, if any, undecided."""
    counts = Counter(labels)
    return f"{counts[1]} malignant" + (f", {counts[None]} undecided" if counts[None] else "")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
