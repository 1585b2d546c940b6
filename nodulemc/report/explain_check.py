"""The explanations of an ensemble that have held on phantoms: ``explanation.json`` beside its manifest, if it exists.

``scripts/explain_check.py`` writes it. It identifies weights and votes, not the manifest as a whole. So it stays valid
with a new calibration, but not with other weights.
"""

from dataclasses import asdict, dataclass
from typing import Any

from nodulemc.ensemble.manifest import EnsembleManifest
from nodulemc.errors import EnsembleError
from nodulemc.util.json_files import number, read_json, write_json_atomically

FILE_NAME = "explanation.json"
METHOD = 1  # to be raised when what is replaced, or the check, changes
LEAST_CORRELATION, LEAST_AGREEMENT = 0.5, 0.8  # chosen
CHECK = "scripts/explain_check.py"


@dataclass(frozen=True)
class Check:
    """The result of checking one kind of explanation on phantoms.

    Attributes:
        correlation: Pearson's correlation. For a part: between the moves of the ensemble's log odds and those of the
            known ones. For the map: between a cell's share of all moves and its share of the nodule.
        agreement: A share of nodules. For a part: those whose log odds move the same way as the known ones, among those
            whose known ones move. For the map: those whose strongest cell holds some of the nodule.
        nodules: The number of phantoms.
    """

    correlation: float
    agreement: float
    nodules: int

    @property
    def passed(self) -> bool:
        """Whether the explanation may be shown."""
        return self.correlation >= LEAST_CORRELATION and self.agreement >= LEAST_AGREEMENT


def read_checks(manifest: EnsembleManifest) -> dict[str, Check] | None:
    """Return the checks by their kind; None if there are none for these weights and this version's method.

    Raises:
        FileError: the file is unreadable or no JSON.
        EnsembleError: it is malformed.
    """
    path = manifest.location / FILE_NAME
    if not path.exists():
        return None
    content = read_json(path)
    try:
        if (content["method"], content["members"]) != (METHOD, _members(manifest)):
            return None
        return {name: _check(found) for name, found in content["checks"].items()}
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise EnsembleError(
            f"a field is missing or malformed ({error!r})", path, f"remove it, or make it again with {CHECK}"
        ) from error


def _check(found: dict[str, Any]) -> Check:
    return Check(number(found["correlation"]), number(found["agreement"]), int(number(found["nodules"])))


def write_checks(manifest: EnsembleManifest, checks: dict[str, Check]) -> None:
    """Write the file into an ensemble's folder.

    Raises:
        FileError: it cannot be written.
    """
    content = {
        "method": METHOD,
        "members": _members(manifest),
        "checks": {name: asdict(check) for name, check in checks.items()},
    }
    write_json_atomically(manifest.location / FILE_NAME, content)


def _members(manifest: EnsembleManifest) -> list[list[Any]]:
    """Return the SHA-256 of the members' files, and their weights."""
    return [[member.sha256, member.weight] for member in manifest.members]
