"""Unique names of nodules and files that stay the same while a cohort is being scored."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nodulemc.points.reading import scan_name

# With a temporary file's prefix and suffix it has to stay below the 255 bytes of most file systems.
_LONGEST = 160
_MARK = re.compile(r"-[0-9a-f]{16}")


def annotation_id(scan: str, number: int, name: str | None) -> str:
    """Return a nodule's name in the cohort.

    Args:
        scan: The scan's name.
        number: The nodule's number in its scan, from 1.
        name: Its name in the manifest. None if it has none.
    """
    return name or f"{scan}#{number}"


def file_names(scans: Iterable[str], suffix: str) -> dict[str, str]:
    """Return the name of each scan's file with this suffix, by the scan's name.

    It is the CT's file name without its suffix. A hash of the scan's name is added if another CT has the same name, if
    the name is long, or if it looks as if it had a hash already.
    """
    stems = {scan: scan_name(Path(scan)) for scan in scans}
    repeated = Counter(stem.casefold() for stem in stems.values())  # some file systems know no upper case
    names = {}
    for scan, stem in stems.items():
        short = stem.encode()[:_LONGEST].decode(errors="ignore")
        if repeated[stem.casefold()] > 1 or short != stem or _MARK.fullmatch(stem[-17:].casefold()):
            short += f"-{hashlib.sha256(scan.encode()).hexdigest()[:16]}"
        names[scan] = short + suffix
    return names
