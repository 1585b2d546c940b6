"""Clinical information about a patient and the nodules, for the risk models: one JSON file, checked.

The file is Grand-Challenge's ``clinical-information-lung-ct.json`` as it is, or with more keys. Only null, a missing
key or Grand-Challenge's "Unknown" mean that a value is not known. Keys that no model needs are ignored.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nodulemc.errors import CaseError
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.util.json_files import number, read_json

_OLDEST = 130
_MOST_NODULES = 1000
_UNKNOWN = "unknown"


def _age(value: Any) -> float:
    if not 0 < number(value) <= _OLDEST:
        raise ValueError
    return number(value)


def _count(value: Any) -> int:
    if not (number(value).is_integer() and 1 <= value <= _MOST_NODULES):
        raise ValueError
    return int(value)


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not (isinstance(value, str) and value.lower() in words):
            raise ValueError
        return value.lower()

    return check


Keys = Mapping[str, tuple[Callable[[Any], Any], str]]
_AGE = (_age, f"a number of years up to {_OLDEST}")
_YES_OR_NO = (_yes_or_no, "true, false or null")
PATIENT_KEYS = {
    "age": _AGE,
    "gender": (_one_of("female", "male", "other"), "female, male, other, unknown or null"),
    "smoking_status": (_one_of("never", "former", "current"), "never, former, current, unknown or null"),
    "family_history": _YES_OR_NO,
    "emphysema": _YES_OR_NO,
    "cancer_history": _YES_OR_NO,
    "nodule_count": (_count, f"a whole number from 1 to {_MOST_NODULES}, or null"),
}
NODULE_KEYS = {
    "type": (_one_of("solid", "part-solid", "ground-glass"), "solid, part-solid, ground-glass, unknown or null"),
    "upper_lobe": _YES_OR_NO,
    "spiculation": _YES_OR_NO,
    "fdg_uptake": (
        _one_of("none", "faint", "moderate", "intense"),
        "none, faint, moderate, intense, unknown or null",
    ),
}


def read_clinical(path: Path, nodules: Sequence[Nodule]) -> list[dict[str, Any]]:
    """Return the known values about each nodule and its patient, by the risk models' names, in the nodules' order.

    Raises:
        FileError: the file cannot be read or is no JSON.
        CaseError: it is not a JSON object, a value is not one of its key's, or it describes a nodule
            that is not among these.
    """
    content = _object(read_json(path), "the clinical information", path)  # null: a socket left empty
    patient = known_values(content, str(path), PATIENT_KEYS)
    described = _object(content.get("nodules"), "nodules", path)
    names = [nodule.name or str(k) for k, nodule in enumerate(nodules, start=1)]
    stranger = next((name for name in described if name not in names), None)
    if stranger is not None:
        raise CaseError(
            f"no nodule is called {shortened(stranger)}",
            path,
            "name nodules as their points, or by position from 1",
        )
    return [
        patient | known_values(_object(described.get(name), f"nodule {shortened(name)}", path),
                               f"{path}, nodule {shortened(name)}", NODULE_KEYS)
        for name in names
    ]  # fmt: skip


def completed(known: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the known values about each nodule and its patient, with those that are given as options.

    Args:
        known: The values of the file, as from ``read_clinical``.
        options: Values of the patient by the risk models' names; None is not given.

    Raises:
        CaseError: a value is not one of its key's, or the file has another one.
    """
    given = known_values(options, "the options", PATIENT_KEYS)
    for key, value in given.items():
        other = next((values[key] for values in known if values.get(key, value) != value), None)
        if other is not None:
            what = f"{key} is {shortened(value)}, but {shortened(other)} in the clinical information"
            raise CaseError(what, f"--{key}", "leave out the option, or correct the file")
    return [{**values, **given} for values in known]


def _object(value: Any, what: str, path: Path) -> dict[str, Any]:
    """Return a JSON object, empty for null.

    Raises:
        CaseError: it is something else.
    """
    if not isinstance(value, dict | None):
        raise CaseError(f"{what} is no JSON object", path, "repair the file")
    return value or {}


def known_values(given: Mapping[str, Any], where: str, keys: Keys = PATIENT_KEYS | NODULE_KEYS) -> dict[str, Any]:
    """Return the known values by the risk models' names; other names are ignored.

    Args:
        given: Values as in JSON.
        where: Their place, for messages.
        keys: The names to look for.

    Raises:
        CaseError: A value is not one of its name's.
    """
    known = {}
    for key, (check, allowed) in keys.items():
        value = given.get(key)
        if value is None or (isinstance(value, str) and value.lower() == _UNKNOWN):
            continue
        try:
            known[key] = check(value)
        except (TypeError, ValueError, OverflowError) as problem:
            raise CaseError(f"{key} is {shortened(value)}", where, f"give {allowed}") from problem
    if known.get("gender") == "other":  # no model knows it
        del known["gender"]
    return known
