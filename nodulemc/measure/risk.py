"""Clinical models of a nodule's risk. Each uses its inputs or names the missing ones; nothing is guessed.

docs/measurements.md gives the meaning of each input, and the patients that each model was made for.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Inputs = Mapping[str, Any]
LONGEST_NODULE_MM = 30.0  # longer ones are masses, which no model knows
_BROCK_4_MM = 1.58113883  # (4 mm / 10)^−0.5, at which the size is centred
_BROCK_TYPE = {"solid": 0.0, "part-solid": 0.3770, "ground-glass": -0.1276}
_HERDER_UPTAKE = {"none": 0.0, "faint": 2.322, "moderate": 4.617, "intense": 4.771}
CATEGORIES = ("2", "3", "4A", "4B")  # of Lung-RADS, by rising suspicion; as texts they are in that order, too
_SOLID_STEPS_MM = ((15.0, "4B"), (8.0, "4A"), (6.0, "3"))
_SOLID_PART_STEPS_MM = ((8.0, "4B"), (6.0, "4A"))


def brock_full(known: Inputs) -> float:
    """Source: McWilliams et al., N Engl J Med 2013;369:910–919, table 2, full model with spiculation (2b)."""
    return _logistic(
        -6.7892
        + 0.0287 * (known["age"] - 62)
        + 0.6011 * _is_female(known)
        + 0.2961 * known["family_history"]
        + 0.2953 * known["emphysema"]
        - 5.3854 * _brock_size(known)
        + _BROCK_TYPE[known["type"]]
        + 0.6581 * known["upper_lobe"]
        - 0.0824 * (known["nodule_count"] - 4)
        + 0.7729 * known["spiculation"]
    )


def brock_parsimonious(known: Inputs) -> float:
    """Source: as ``brock_full``, parsimonious model with spiculation (1b)."""
    return _logistic(
        -6.6144
        + 0.6467 * _is_female(known)
        - 5.5537 * _brock_size(known)
        + 0.6009 * known["upper_lobe"]
        + 0.9309 * known["spiculation"]
    )


def mayo(known: Inputs) -> float:
    """Source: Swensen et al., Arch Intern Med 1997;157:849–855."""
    return _logistic(
        -6.8272
        + 0.0391 * known["age"]
        + 0.7917 * (known["smoking_status"] != "never")
        + 1.3388 * known["cancer_history"]
        + 0.1274 * known["long_axis_mm"]
        + 1.0407 * known["spiculation"]
        + 0.7838 * known["upper_lobe"]
    )


def herder(known: Inputs) -> float:
    """Source: Herder et al., Chest 2005;128:2490–2496: the Mayo model's probability and the uptake of FDG."""
    return _logistic(-4.739 + 3.691 * mayo(known) + _HERDER_UPTAKE[known["fdg_uptake"]])


def lung_rads_size(known: Inputs) -> str:
    """Return a nodule's category by size alone at a baseline screen: "2", "3", "4A" or "4B".

    Diameters are means of the two axes, to one decimal.

    Source: Christensen et al., J Am Coll Radiol 2024;21:473–488 (American College of Radiology, Lung-RADS v2022).
    """
    mean = _mean_mm(known["long_axis_mm"], known["short_axis_mm"])
    if known["type"] == "ground-glass":
        return "3" if mean >= 30 else "2"
    if known["type"] == "solid":
        return _step(mean, _SOLID_STEPS_MM, "2")
    if mean < 6:
        return "2"
    return _step(_mean_mm(known["solid_long_axis_mm"], known["solid_short_axis_mm"]), _SOLID_PART_STEPS_MM, "3")


@dataclass(frozen=True)
class Model:
    """A risk model.

    Attributes:
        apply: Computes the result from inputs, if none is missing.
        needs: The names of the inputs.
        result: The name of the result.
    """

    apply: Callable[[Inputs], float | str]
    needs: tuple[str, ...]
    result: str = "probability"


_MAYO = ("age", "smoking_status", "cancer_history", "long_axis_mm", "spiculation", "upper_lobe")
MODELS = {
    "brock_full": Model(
        brock_full,
        ("age", "gender", "family_history", "emphysema", "long_axis_mm", "type", "upper_lobe", "nodule_count",
         "spiculation"),
    ),
    "brock_parsimonious": Model(brock_parsimonious, ("gender", "long_axis_mm", "upper_lobe", "spiculation")),
    "mayo": Model(mayo, _MAYO),
    "herder": Model(herder, (*_MAYO, "fdg_uptake")),
    "lung_rads_size": Model(
        lung_rads_size,
        ("type", "long_axis_mm", "short_axis_mm", "solid_long_axis_mm", "solid_short_axis_mm"),
        "category",
    ),
}  # fmt: skip


def assess(known: Inputs) -> dict[str, dict[str, Any]]:
    """Return each model's result by its name: ``probability`` or ``category``, or the ``missing`` inputs.

    A result has a ``caution`` if its model was not made for such long nodules.

    Args:
        known: The inputs by name. A value that is absent or None is not known.
    """
    return {name: _assess(model, known) for name, model in MODELS.items()}


def _assess(model: Model, known: Inputs) -> dict[str, Any]:
    missing = [name for name in model.needs if known.get(name) is None]
    if missing:
        return {"missing": missing}
    result = {model.result: model.apply(known)}
    if known["long_axis_mm"] > LONGEST_NODULE_MM and model.result == "probability":
        result["caution"] = f"longer than {LONGEST_NODULE_MM:g} mm: a mass, for which the model was not made"
    return result


def _logistic(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def _is_female(known: Inputs) -> bool:
    return bool(known["gender"] == "female")


def _brock_size(known: Inputs) -> float:
    return float((known["long_axis_mm"] / 10) ** -0.5 - _BROCK_4_MM)


def _mean_mm(long: float, short: float) -> float:
    return _to_tenth((_to_tenth(long) + _to_tenth(short)) / 2)


def _to_tenth(mm: float) -> float:
    """Round to one decimal, halves upwards; 1e-9 is added because 7.95 is a little less in binary."""
    return math.floor(mm * 10 + 0.5 + 1e-9) / 10


def _step(mm: float, steps: tuple[tuple[float, str], ...], below: str) -> str:
    return next((category for least, category in steps if mm >= least), below)
