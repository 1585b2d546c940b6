"""The columns of tables: LUNA25's names, which this program uses, and other common names. Needs no package."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nodulemc.ratings import HIGHEST, READERS

UID, PATIENT, ANNOTATION, LABEL = "SeriesInstanceUID", "PatientID", "AnnotationID", "label"
# The forms of a label: 1 is malignant, 0 benign. In a column with gaps, pandas writes whole numbers as decimals.
LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
SOURCE_UID = "source_series_uid"  # the scan of a cut-out that has its own SeriesInstanceUID
AGE, GENDER = "Age_at_StudyDate", "Gender"
COORDINATES = ("CoordX", "CoordY", "CoordZ")  # world x, y, z in mm, LPS
# The columns of luna25_public_training_development_data.csv (LUNA25, https://luna25.grand-challenge.org).
LUNA25 = (
    PATIENT, UID, "StudyDate", *COORDINATES, "LesionID", ANNOTATION, "NoduleID", LABEL, AGE, GENDER,
)  # fmt: skip
PATHS = ("ct", "path", "scan")
POINTS = "points"
# A column's name, in any spelling, determines its content. These are whole numbers or words, but never measures.
IDENTIFIERS = (PATIENT, UID, "LesionID", ANNOTATION, "NoduleID")
SEED_PREFIX = "seed_"
# The facts about an ensemble in its predictions: the SHA-256 of its ensemble.json, its training data in words, its
# calibration, and whether it was trained on the nodule's case (see nodulemc.ensemble.trained_cases).
ENSEMBLE, TRAINED_ON, CALIBRATION, SEEN_IN_TRAINING = "ensemble", "trained_on", "calibration", "seen_in_training"
ATTRIBUTE_PREFIX = "attribute_"  # an ensemble's prediction; without it, the readers' rating
# The columns that measuring, risk models and the comparison with a prior scan add.
MEASURED = (
    "volume_mm3", "long_axis_mm", "short_axis_mm", "size_mm", "effective_diameter_mm", "mean_hu", "mass_mg",
    "solid_volume_mm3", "solid_long_axis_mm", "solid_short_axis_mm", "point_distance_mm",
    "brock_full", "brock_parsimonious", "mayo", "herder", "prior_volume_mm3", "interval_days", "volume_change_percent",
    "volume_doubling_time_days", "prior_distance_mm", "registration_similarity",
)  # fmt: skip
LUNG_RADS, RISK_MISSING = "lung_rads_size", "risk_missing"
_NUMBERS = (*COORDINATES, LABEL, "probability", AGE, "diameter_mm", READERS, *HIGHEST, *MEASURED)
# Other names, best first. LUNA16 (https://luna16.grand-challenge.org) has seriesuid, coordX, coordY, coordZ. Its
# ``class`` says whether there is a nodule, not of which kind, so it is no label.
_OTHERS = {
    UID: ("seriesuid",),
    PATIENT: ("patient",),
    ANNOTATION: ("name", "id"),
    AGE: ("age",),
    GENDER: ("sex",),
    **{column: (column[-1],) for column in COORDINATES},
}
# The inputs of the risk models, besides age and sex, that nobody measures. Spiculation is among the ratings' names.
_CLINICAL = (
    "smoking_status", "family_history", "emphysema", "cancer_history", "nodule_count", "type", "upper_lobe",
    "fdg_uptake",
)  # fmt: skip
_KNOWN = (*LUNA25, *PATHS, POINTS, "probability", "fold", "diameter_mm", READERS, *HIGHEST, *_CLINICAL)


def canonical(header: Sequence[str]) -> list[str]:
    """Return the header with this program's name for every known column. Other columns keep their names.

    Upper case, blanks, ``_`` and ``-`` make no difference. If several columns may be the same, the one with the best
    name is taken, and the others keep their names.
    """
    names, keys = list(header), [_key(name) for name in header]
    for column in _KNOWN:
        candidates = (_key(name) for name in (column, *_OTHERS.get(column, ())))
        best = next((key for key in candidates if key in keys), None)
        names = [column if key == best else name for name, key in zip(names, keys, strict=True)]
    return names


def two_points(columns: Sequence[str]) -> bool:
    """Return whether a header from ``canonical`` has coordinates twice, as CoordX, CoordY, CoordZ and as x, y, z."""
    keys = [_key(name) for name in columns]
    return all(_key(name) in keys for column in COORDINATES for name in (column, *_OTHERS[column]))


def is_number(column: str) -> bool:
    """Return whether the cells of a column that ``canonical`` named are measures."""
    return column in _NUMBERS or column.startswith((SEED_PREFIX, ATTRIBUTE_PREFIX))


def tally(labels: Iterable[int | None]) -> str:
    """Return in words how many nodules are malignant and, if any, undecided."""
    counts = Counter(labels)
    return f"{counts[1]} malignant" + (f", {counts[None]} undecided" if counts[None] else "")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
