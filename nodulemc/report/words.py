"""The words for numbers on pages: names, units, digits, and the meaning of a probability."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.ratings import HIGHEST, LOWEST
from nodulemc.report.explain_check import CHECK, LEAST_AGREEMENT, LEAST_CORRELATION, Check
from nodulemc.report.occlusion import CORE, CORE_MM, MAP, PLEURA, RIM, RIM_MM, SOLID, WHAT

UNKNOWN = "not known"
# Endings of names, with the unit and the decimals that are shown.
_UNITS = {
    "_mm3": ("mm³", 0), "_ml": ("ml", 1), "_mm": ("mm", 1), "_hu": ("HU", 0), "_mg": ("mg", 0), "_days": ("days", 0),
    "_years": ("years", 1), "_percent": ("%", 0),
}  # fmt: skip
_PART_OF_THE_NAME = "_hu"  # "Mean HU", not "Mean"
_ABBREVIATIONS = {
    "brock": "Brock", "mayo": "Mayo", "herder": "Herder", "lung rads": "Lung-RADS", "hu": "HU", "fdg": "FDG",
    "vdt": "VDT", "dicom": "DICOM",
}  # fmt: skip
# The meanings of the ends of the readers' scales. Source: the package pylidc.
_SCALES = {
    "spiculation": ("none", "marked"),
    "lobulation": ("none", "marked"),
    "texture": ("ground glass", "solid"),
    "margin": ("poorly defined", "sharp"),
    "sphericity": ("linear", "round"),
    "calcification": ("popcorn", "absent"),
    "subtlety": ("extremely subtle", "obvious"),
}
# The part that an explanation removes, and its replacement.
_TAKEN = {
    SOLID: ("Solid part", "its voxels above ground glass become ground glass"),
    RIM: ("Rim", f"spicules and strands up to {RIM_MM:g} mm from the nodule become lung"),
    PLEURA: ("Pleura", f"chest wall, mediastinum and diaphragm up to {RIM_MM:g} mm from the nodule become lung"),
    CORE: ("Size", f"the nodule becomes lung but for a core of {CORE_MM:g} mm"),
    MAP: ("Map", ""),
}


class Fact(NamedTuple):
    """One line of a table: its name, its value in words, and a remark."""

    name: str
    value: str
    note: str = ""


def facts(found: Any) -> list[Fact]:
    """Return each value of a mapping or dataclass as a line; nested ones follow their name and have its unit."""
    return [*_facts(found if isinstance(found, Mapping) else asdict(found))]


def _facts(found: Mapping[str, Any], prefix: str = "", given: str = "") -> Iterator[Fact]:
    """Yield the lines of a mapping. ``given`` is the ending of the name above it that states a unit."""
    for name, value in found.items():
        own = next((ending for ending in _UNITS if name.endswith(ending)), "")
        label = prefix + (name if own == _PART_OF_THE_NAME else name.removesuffix(own))
        if isinstance(value, Mapping):
            yield from _facts(value, f"{label}_", own or given)
        else:
            yield Fact(spoken(label), _worded(value, *_UNITS.get(own or given, ("", 3))))


def _worded(value: Any, unit: str, decimals: int) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_worded(one, unit, decimals) for one in value) or "none"
    if isinstance(value, int | float):
        number = f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}"
        return f"{number} {unit}".strip().replace("-", "−")
    return str(value)


def spoken(name: str) -> str:
    """Return a name of the results in words: "long_axis" is "Long axis"."""
    words = name.replace("_", " ").strip()
    for plain, proper in _ABBREVIATIONS.items():
        words = f" {words} ".replace(f" {plain} ", f" {proper} ").strip()
    return words[:1].upper() + words[1:]


def ratings(names: tuple[str, ...], values: tuple[float, ...]) -> list[Fact]:
    """Return attributes on the readers' scale, with the meaning of its ends."""
    return [
        Fact(spoken(name), f"{value:.1f}", f"{LOWEST} {_SCALES[name][0]}, {HIGHEST[name]} {_SCALES[name][1]}")
        for name, value in zip(names, values, strict=True)
    ]


def risks(found: Mapping[str, Mapping[str, Any]]) -> list[Fact]:
    """Return the risk models' results, or their missing inputs."""
    return [Fact(spoken(name), *_risk(result)) for name, result in found.items()]


def _risk(result: Mapping[str, Any]) -> tuple[str, str]:
    if "missing" in result:
        missing = ", ".join(spoken(name.removesuffix("_mm")).lower() for name in result["missing"])
        return UNKNOWN, f"missing: {missing}"
    value = result.get("probability", result.get("category"))
    return _worded(value, "", 3), result.get("caution", "")


def meaning(manifest: EnsembleManifest, calibrated: float | None) -> str:
    """Return a sentence on the meaning of a probability; ``calibrated`` is None without a calibration."""
    if manifest.trained_on is None:
        return "The weights are untrained: the number means nothing."
    if calibrated is None:
        return (
            "The ensemble states no prevalence and no calibration: the number puts nodules in order of suspicion, but "
            "is not the share of such nodules that are malignant."
        )
    prevalence = manifest.calibration_map["prevalence"]
    return (
        f"Where {100 * prevalence:.3g} % of all nodules are malignant (the prevalence that the ensemble's calibration "
        f"is for), about {1000 * calibrated:.0f} of 1,000 nodules rated like this one are."
    )


def without(parts: Mapping[str, float], probability: float, checks: Mapping[str, Check]) -> list[tuple[str, ...]]:
    """Return a line for each replaced part of a nodule.

    It has the part's name, its replacement, the probability without it, the difference, and how well such explanations
    held on phantoms.
    """
    return [
        (
            *_TAKEN[part],
            f"{found:.3f}",
            f"{found - probability:+.3f}".replace("-", "−"),
            f"{checks[part].correlation:.2f}",
        )
        for part, found in parts.items()
    ]


def not_explained(checks: Mapping[str, Check] | None) -> str:
    """Return a sentence on the explanations that are not shown, and why; empty if all are.

    Args:
        checks: The ensemble's checks. None if there are none.
    """
    if checks is None:
        return f"No explanation is shown: these weights have not been checked on phantoms ({CHECK} does that)."
    failed = [name for name in WHAT if not (name in checks and checks[name].passed)]
    if not failed:
        return ""
    said = ", ".join(f"{_TAKEN[name][0].lower()} ({_held(checks.get(name))})" for name in failed)
    return (
        f"Not shown, as on phantoms it did not move the probability as the known one moves: {said}. Asked for are a "
        f"correlation of {LEAST_CORRELATION:g} and the same direction in {LEAST_AGREEMENT:.0%} of the nodules."
    )


def _held(check: Check | None) -> str:
    if check is None:
        return "not checked"
    return f"correlation {check.correlation:.2f}, same direction in {check.agreement:.0%}".replace("-", "−")
