"""The scans and patients that an ensemble was trained on: ``trained_cases.csv`` in its folder. Needs no torch."""

import csv
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nodulemc.columns import PATIENT, UID
from nodulemc.ct.scan_ids import ScanIds
from nodulemc.ensemble.manifest import FILE_NAME as MANIFEST_NAME
from nodulemc.ensemble.manifest import EnsembleManifest, require_sha256
from nodulemc.errors import EnsembleError
from nodulemc.limits import MAX_TABLE_BYTES
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.files import read_limited, remove_old

FILE_NAME = "trained_cases.csv"
COLUMNS = (UID, PATIENT, "member")
ALL = "all"
_REMEDY = f"give the columns {', '.join(COLUMNS)}, or remove it"
# What an ensemble was trained on of a case, where that is known, and the warning that says so.
SEEN = SCAN, SAME_PATIENT, NOT_SEEN = ("scan", "patient", "no")
WARNINGS = {
    SCAN: "the ensemble was trained on this scan: the probability is no test of the ensemble",
    SAME_PATIENT: "the ensemble was trained on a scan with this PatientID: the probability is no test of the ensemble",
}


class TrainedCase(NamedTuple):
    """A scan that the weights have learned from, by its SeriesInstanceUID and PatientID."""

    uid: str
    patient: str


@dataclass(frozen=True)
class TrainedCases:
    """The scans that an ensemble was trained on, row by row.

    Attributes:
        uids: SeriesInstanceUIDs, empty where not known.
        patients: PatientIDs, empty where not known.
        members: The name of the member that was trained on the scan, or ALL.
    """

    uids: tuple[str, ...]
    patients: tuple[str, ...]
    members: tuple[str, ...]

    @cached_property
    def _known(self) -> tuple[frozenset[str], frozenset[str]]:
        """All members' SeriesInstanceUIDs and PatientIDs."""
        return frozenset(self.uids) - {""}, frozenset(self.patients) - {""}

    def of_member(self, name: str) -> frozenset[TrainedCase]:
        """Return the cases that one member was trained on."""
        rows = zip(self.uids, self.patients, self.members, strict=True)
        return frozenset(TrainedCase(uid, patient) for uid, patient, member in rows if member in (ALL, name))

    def seen(self, scan: ScanIds) -> str | None:
        """Return SCAN if it was trained on, SAME_PATIENT if only its patient was, else NOT_SEEN; None if unknown."""
        uids, patients = self._known
        if not uids.isdisjoint(scan.uids):
            return SCAN
        if scan.patient in patients:
            return SAME_PATIENT
        return NOT_SEEN if scan.tell else None


def read_trained_cases(manifest: EnsembleManifest) -> TrainedCases | None:
    """Return the list in an ensemble's folder. None if it has none: then the cases are not known.

    Raises:
        FileError: The file cannot be read.
        EnsembleError: It is not such a list, or not the one that the manifest names by its SHA-256.
    """
    path = manifest.location / FILE_NAME
    if not path.exists():
        return None
    # Reading sets aside as much memory as the limit says.
    content = read_limited(path, min(path.stat().st_size, MAX_TABLE_BYTES))
    if manifest.trained_cases is None:
        found = hashlib.sha256(content).hexdigest()
        raise EnsembleError(f"{MANIFEST_NAME} names no {FILE_NAME}", path, f'remove it, or state "{found}" there')
    remedy = "the file is damaged or another ensemble's; copy it again, or remove it"
    require_sha256(content, manifest.trained_cases, path, remedy)
    return _parsed(content, manifest.member_names, path)


def write_trained_cases(folder: Path, members: Mapping[str, Collection[TrainedCase] | None]) -> str | None:
    """Write the list into an ensemble's folder. If no member's cases are known, remove an existing list.

    Args:
        folder: The ensemble's folder.
        members: The cases of each member, by its name. None if they are not known.

    Returns:
        The file's SHA-256 for the manifest. None if no member's cases are known.

    Raises:
        FileError: the file cannot be written or removed.
    """
    path = folder / FILE_NAME
    known = {name: frozenset(cases) for name, cases in members.items() if cases is not None}
    if not known:
        remove_old(path)
        return None
    by_all = frozenset.intersection(*known.values()) if len(known) == len(members) else frozenset()
    rows = [(*case, ALL) for case in by_all] + [(*case, name) for name, own in known.items() for case in own - by_all]
    write_csv_atomically(path, [COLUMNS, *sorted(rows, key=lambda row: (row[1], *row))])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def strongest(seen: Iterable[str | None]) -> str | None:
    """Return the first of SEEN that is among these, or None."""
    found = set(seen)
    return next((one for one in SEEN if one in found), None)


def with_warning(warnings: Collection[str], seen: str | None) -> tuple[str, ...]:
    """Return the warnings, preceded by the one for ``seen`` (one of SEEN, or None for no warning)."""
    return (*([WARNINGS[seen]] if seen in WARNINGS else []), *warnings)


def _parsed(content: bytes, members: Collection[str], path: Path) -> TrainedCases:
    try:
        cells = _cells(content.decode("utf-8-sig").replace("\r", ""))
    except (ValueError, csv.Error) as error:  # Unicode errors are ValueErrors
        raise EnsembleError(f"cannot read the list ({error})", path, _REMEDY) from error
    width = len(COLUMNS)
    columns = [tuple(cells[k::width]) for k in range(width)]
    if tuple(cells[:width]) != COLUMNS or len(cells) % width:
        raise EnsembleError("it is no list of training cases", path, _REMEDY)
    if strangers := set(columns[-1][1:]) - {ALL, *members}:
        raise EnsembleError(f"no member is called {min(strangers)[:80]!r}", path, f"name members, or write {ALL}")
    return TrainedCases(*(column[1:] for column in columns))


def _cells(text: str) -> list[str]:
    """Return all cells, row by row. Without quotes they are split at once, ten times as fast as by ``csv``."""
    if '"' in text:
        return [cell for row in csv.reader(text.split("\n"), strict=True) for cell in row]
    return text.rstrip("\n").replace("\n", ",").split(",")
