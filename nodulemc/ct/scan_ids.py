"""A scan's identifiers, as far as its header states them."""

import re
from dataclasses import dataclass
from pathlib import Path

# As ITK writes DICOM's tags into MetaImage and NRRD, and as Grand-Challenge's converter (panimg) writes their names.
_TAG = re.compile(
    rb"^[ \t]*(?:(?P<uid>0020\|000e|SeriesInstanceUID)|0010\|0020|PatientID)[ \t]*:?=[ \t]*(?P<value>[^\r\n]*)",
    re.MULTILINE | re.IGNORECASE,
)
_UID = re.compile(r"\d+(\.\d+)+", re.ASCII)


@dataclass(frozen=True)
class ScanIds:
    """A scan's identifiers.

    Attributes:
        uids: Its SeriesInstanceUID from the header, the file's name or a table; may be empty.
        patient: Its PatientID. None if nothing states it.
    """

    uids: frozenset[str] = frozenset()
    patient: str | None = None

    @property
    def tell(self) -> bool:
        """Whether they can identify the scan; a file named ``ct.mha`` does not."""
        return self.patient is not None or any(map(_UID.fullmatch, self.uids))


def read_ids(path: Path, end: int) -> ScanIds:
    """Return the identifiers in a text header, which is the first ``end`` bytes of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        tags = [*_TAG.finditer(file.read(end))]
    stated = [(tag["uid"], tag["value"].decode("utf-8", "replace").strip("\0 \t")) for tag in tags]
    uids = frozenset(value for is_uid, value in stated if is_uid and value)
    return ScanIds(uids, next((value for is_uid, value in stated if value and not is_uid), None))
