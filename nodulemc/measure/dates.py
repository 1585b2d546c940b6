"""The date of a CT, from its DICOM header."""

import re
from collections.abc import Iterator
from datetime import date

from nodulemc.ct.volume import Volume

# Best first: when its data were acquired; when its series and its study began. Source: DICOM PS3.3, C.7.2.1, C.7.3.1,
# C.8.2.1 and C.8.15.2.
_NAMES = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "StudyDate")
_DATE = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)  # before 1993 with points


def scan_date(volume: Volume) -> date | None:
    """Return the best date in a scan's DICOM header, or None."""
    return next(_stated(volume.acquisition), None)


def _stated(acquisition: dict[str, str]) -> Iterator[date]:
    for name in _NAMES:
        if match := _DATE.match(acquisition.get(name, "").strip()):
            try:
                yield date(*map(int, match.group(1, 3, 4)))
            except ValueError:  # no day of the calendar
                continue
