"""Writers of LIDC-IDRI's XML for tests, and pylidc to judge what is made of it."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from nodulemc.data.lidc_xml import RATINGS, Marking, Outline

Points = Sequence[tuple[int, int]]
NAMESPACE = 'xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def box(left: int, top: int, right: int, bottom: int) -> Points:
    """A rectangle's border pixel by pixel, as the readers' program has it."""
    across = [(x, top) for x in range(left, right)] + [(right, y) for y in range(top, bottom)]
    return [*across, *((x, bottom) for x in range(right, left, -1)), *((left, y) for y in range(bottom, top - 1, -1))]


def marking(reader: int, *outlines: tuple[float, Points], cut_out: Iterable[tuple[float, Points]] = (), **ratings: int):
    """A marking of outlines (z, points)."""
    both = [(*outline, True) for outline in outlines] + [(*outline, False) for outline in cut_out]
    found = tuple(Outline(float(z), includes, tuple(points)) for z, points, includes in both)
    return Marking(reader, found, dict(ratings))


def write_reading(path: Path, series: str, markings: Iterable[Marking], sessions: int = 4) -> Path:
    """A reading as the archive has it, with a small nodule and another finding in each session."""
    markings = list(markings)
    parts = [
        f'<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1.2" {NAMESPACE}>\n<ResponseHeader>'
        f"<Version>1.8.1</Version><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    ]
    for reader in range(sessions):
        parts.append(f"<readingSession><servicingRadiologistID>{reader}</servicingRadiologistID>")
        parts += [_nodule(k, one) for k, one in enumerate(markings) if one.reader == reader]
        parts.append(
            f"<unblindedReadNodule><noduleID>small</noduleID>{_roi(Outline(-1.0, True, ((3, 4),)))}"
            "</unblindedReadNodule><nonNodule><nonNoduleID>other</nonNoduleID><imageZposition>-1.0</imageZposition>"
            "<locus><xCoord>1</xCoord><yCoord>2</yCoord></locus></nonNodule></readingSession>"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</LidcReadMessage>"]))
    return path


def _nodule(number: int, one: Marking) -> str:
    ratings = "".join(f"<{name}>{one.ratings[name]}</{name}>" for name in RATINGS if name in one.ratings)
    rois = "".join(map(_roi, one.outlines))
    return (
        f"<unblindedReadNodule><noduleID>Nodule {number}</noduleID><characteristics>{ratings}</characteristics>"
        f"{rois}</unblindedReadNodule>"
    )


def _roi(outline: Outline) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in outline.points)
    return (
        f"<roi><imageZposition>{outline.z:.6f} </imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>"
        f"<inclusion>{str(outline.includes).upper()}</inclusion>{edges}</roi>"
    )


def import_pylidc(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, object]:
    """pylidc 0.2.3, which needs names that NumPy and setuptools have given up."""
    monkeypatch.setattr(np, "int", int, raising=False)
    monkeypatch.setattr(np, "float", float, raising=False)
    place = SimpleNamespace(resource_filename=lambda package, name: str(folder_of(package) / name))
    monkeypatch.setitem(sys.modules, "pkg_resources", place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pylidc = pytest.importorskip("pylidc", exc_type=ImportError)
        from pylidc.utils import consensus
    return pylidc, consensus


def folder_of(package: str) -> Path:
    return Path(sys.modules[package].__file__).parent
