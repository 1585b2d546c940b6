"""The readers' XML of LIDC-IDRI, as the Cancer Imaging Archive provides it beside the CTs.

A file holds up to four sessions, one for each radiologist. A session marks nodules of 3 mm or more by outlines and
ratings. It marks smaller ones and other findings by a point each; those are left out here.

Source: "LIDC XML file documentation" (https://www.cancerimagingarchive.net/collection/lidc-idri).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from nodulemc.errors import TableError
from nodulemc.ratings import HIGHEST, LOWEST
from nodulemc.util.files import read_limited
from nodulemc.util.text import plain_number

# The highest rating of each scale.
RATINGS = HIGHEST | {"internalStructure": 4}
MAX_XML_BYTES = 32 << 20  # thirty times the longest file of LIDC-IDRI
MAX_POINTS = 2_000  # of one outline
_ROOT = "LidcReadMessage"  # readings of chest radiographs have other roots
_WHOLE = re.compile(r"-?\d{1,5}", re.ASCII)
_INCLUSION = {"TRUE": True, "FALSE": False}
_REMEDY = "download it again, or remove it if it is none of LIDC-IDRI's"


@dataclass(frozen=True)
class Outline:
    """A closed line in one slice.

    Attributes:
        z: The world z of the slice (ImagePositionPatient) in mm.
        includes: Whether the enclosed part belongs to the nodule. Otherwise it is cut out of it.
        points: Pixels (column, row) from 0. They are the first pixels outside the enclosed part.
    """

    z: float
    includes: bool
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Marking:
    """One reader's description of one nodule of 3 mm or more.

    Attributes:
        reader: The session's place in the file, from 0.
        outlines: The outlines, at least one with several points.
        ratings: The ratings by name (see ``RATINGS``), as far as they are given and on their scales.
    """

    reader: int
    outlines: tuple[Outline, ...]
    ratings: dict[str, int]


@dataclass(frozen=True)
class Reading:
    """All readers' descriptions of one CT.

    Attributes:
        series: The CT's SeriesInstanceUID.
        markings: The markings in the file's order.
    """

    series: str
    markings: tuple[Marking, ...]


def read_reading(path: Path) -> Reading | None:
    """Read a file.

    Returns:
        The reading. None if the file is XML, but no reading of a CT.

    Raises:
        FileError: the file cannot be read.
        TableError: it is malformed, declares entities or a document type, or lacks a part of a reading.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    content = read_limited(path, MAX_XML_BYTES)
    try:
        root = fromstring(content, forbid_dtd=True)
        return _reading(root) if _local(root) == _ROOT else None
    except DefusedXmlException as error:
        raise TableError("the XML declares a document type", path, _REMEDY) from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError is for an unknown encoding
        raise TableError(f"cannot read the XML ({error})", path, _REMEDY) from error


def _reading(root: Element) -> Reading:
    series = _text(root, "{*}ResponseHeader/{*}SeriesInstanceUid")
    sessions = root.findall("{*}readingSession")
    markings = (marking for reader, session in enumerate(sessions) for marking in _markings(reader, session))
    return Reading(series, tuple(markings))


def _markings(reader: int, session: Element) -> Iterator[Marking]:
    for nodule in session.findall("{*}unblindedReadNodule"):
        outlines = tuple(_outline(roi) for roi in nodule.findall("{*}roi"))
        if any(len(outline.points) > 1 for outline in outlines):
            yield Marking(reader, outlines, _ratings(nodule))


def _outline(roi: Element) -> Outline:
    z, stated = plain_number(_text(roi, "{*}imageZposition")), _text(roi, "{*}inclusion").upper()
    if z is None or stated not in _INCLUSION:
        raise ValueError(f"an outline's imageZposition is {z}, its inclusion {stated[:20]!r}")
    edges = roi.findall("{*}edgeMap")
    if not 0 < len(edges) <= MAX_POINTS:
        raise ValueError(f"an outline of {len(edges)} points")
    return Outline(z, _INCLUSION[stated], tuple((_whole(e, "xCoord"), _whole(e, "yCoord")) for e in edges))


def _ratings(nodule: Element) -> dict[str, int]:
    """Return a reader's ratings. LIDC-IDRI has two nodules without ratings and one rating off its scale."""
    given = nodule.find("{*}characteristics")
    if given is None:
        return {}
    ratings = {name: _whole(given, name) for name in RATINGS if given.findtext(f"{{*}}{name}", "").strip()}
    return {name: rating for name, rating in ratings.items() if LOWEST <= rating <= RATINGS[name]}


def _whole(element: Element, name: str) -> int:
    text = _text(element, f"{{*}}{name}")
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{name} is {text[:20]!r}")
    return int(text)


def _text(element: Element, path: str) -> str:
    text = element.findtext(path, "").strip()
    if not text:
        raise ValueError(f"{_local(element)} has no {path.replace('{*}', '')}")
    return text


def _local(element: Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]
