"""Pages of a cohort's scans, one a scan, and an index of them.

Each page says what result it is of. So a later run finds those that are missing or of another result, whatever has
happened meanwhile; a scan's result is kept first, then its page is written, whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nodulemc.cohort.names import file_names
from nodulemc.cohort.view import View, seen, view
from nodulemc.errors import CaseError
from nodulemc.json_files import make_folder, remove_old, write_atomically
from nodulemc.measure.mask import nodule_mask
from nodulemc.measure.nodule import measured
from nodulemc.report.page import Finding, Origin, case_page
from nodulemc.report.templates import render
from nodulemc.trained_cases import with_note
from nodulemc.volume import Volume

if TYPE_CHECKING:
    import numpy as np

    from nodulemc.cohort.scoring import Scored
    from nodulemc.cohort.store import Listed, Record
    from nodulemc.prediction import NodulePrediction
    from nodulemc.report.pictures import View as NoduleView

INDEX_NAME = "index.html"
FOLDER = "scans"
_LOCK_NAME = ".index.lock"
_VERSION = 1  # to be raised when pages of the same results are worth making again
_KEY = re.compile(rb'<meta name="nodulemc-result" content="([0-9a-f]{64})">')
_HEAD_BYTES = 4096  # of a page, in which it says what it is of


class Pages:
    """A folder with a cohort's pages."""

    def __init__(self, folder: Path, scans: Iterable[str], origin: Origin) -> None:
        """Make the folder.

        Args:
            folder: where the index is to be; the pages are in ``scans`` below.
            scans: the names of all of the cohort's, from which the pages' names are made.
            origin: what makes the results.

        Raises:
            CaseError: the folder cannot be made or written.
        """
        make_folder(folder / FOLDER, CaseError)
        self._origin = origin
        self._paths = _paths(folder, scans)

    def has(self, record: Record) -> bool:
        """Whether a result's page is there."""
        return _key_in(self._paths[record.scan]) == _key(record)

    def write(self, record: Record, scored: Scored, known: str | None) -> None:
        """Write a scan's page.

        Args:
            record: the scan's result as it is kept.
            scored: what it is made of.
            known: what the ensemble was trained on of the scan, as in ``Record.seen``.

        Raises:
            CaseError: it cannot be written.
        """
        predictions = [replace(p, warnings=with_note(p.warnings, known)) for p in scored.predictions]
        views = scored.read.views
        if scored.masks:
            findings = map(_segmented, predictions, views, scored.masks)
        else:
            findings = map(Finding, predictions, views)
        page = case_page(record.scan, [*findings], self._origin, key=_key(record))
        write_atomically(self._paths[record.scan], page.encode(), CaseError)


def write_index(folder: Path, cohort: Path) -> int:
    """Write the index of all scans, and remove pages of theirs that are of no standing result.

    Args:
        folder: of the pages.
        cohort: the cohort's.

    Returns:
        How many scans with results have no page.

    Raises:
        CaseError: a file cannot be written or removed.
    """
    make_folder(folder / FOLDER, CaseError)
    with (folder / _LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Pages first: whatever others add meanwhile, each result is kept before its page is written.
        keys = {path: _key_in(path) for path in (folder / FOLDER).iterdir()}
        state = view(cohort)
        paths = _paths(folder, (listed.scan for listed in state.listed))
        standing = {record.scan: _key(record) for _, record in state.done}
        for scan, path in paths.items():
            if keys.get(path) not in (None, standing.get(scan)):
                remove_old(path, CaseError)
        with_page = {
            scan: path for scan, path in paths.items() if scan in standing and keys.get(path) == standing[scan]
        }
        rows = [_row(listed, state, with_page.get(listed.scan)) for listed in state.listed]
        page = render(
            "nodulemc.report",
            "index.html.jinja",
            script="index.js",
            rows=rows,
            statuses=list(dict.fromkeys(row["status"] for row in rows)),
            ensemble=state.plan.ensemble,
        )
        write_atomically(folder / INDEX_NAME, page.encode(), CaseError)
    return len(standing) - len(with_page)


def _row(listed: Listed, state: View, page: Path | None) -> dict[str, Any]:
    """What the index shows of a scan."""
    record = state.records.get(listed.scan)
    row = {"scan": listed.scan, "link": page and f"{FOLDER}/{quote(page.name)}", "status": "to do", "error": "",
           "nodules": [], "highest": None, "warnings": []}  # fmt: skip
    if record is None:
        return row
    if record.error is not None:
        return row | {"status": "failed", "error": str(record.error)}
    nodules = [(p.nodule.name or str(k), p.probability) for k, p in enumerate(record.predictions, start=1)]
    said = (with_note(p.warnings, seen(listed, record)) for p in record.predictions)
    return row | {
        "status": "done",
        "nodules": nodules,
        "highest": max((probability for _, probability in nodules), default=None),
        "warnings": list(dict.fromkeys(warning for warnings in said for warning in warnings)),
    }


def _segmented(prediction: NodulePrediction, nodule: NoduleView, probability: np.ndarray) -> Finding:
    """A nodule with its mask and what it measures; the part of the scan that its view has is enough."""
    part = Volume(nodule.part, Path("the scan"))
    mask = nodule_mask(part, prediction.nodule.point, probability)
    prediction = replace(prediction, warnings=(*prediction.warnings, *mask.warnings))
    (found,) = measured([prediction], part, [mask], None)
    return Finding(found, nodule, nodule.on_scan(mask))


def _paths(folder: Path, scans: Iterable[str]) -> dict[str, Path]:
    return {scan: folder / FOLDER / name for scan, name in file_names(scans, ".html").items()}


def _key(record: Record) -> str:
    """What a result depends on, and with it its page."""
    inputs = record.fingerprint
    content = [_VERSION, record.scan, record.given, inputs.ct, inputs.points, record.weights, record.precision]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _key_in(path: Path) -> str | None:
    """What a page says it is of; None where there is no such page."""
    try:
        with path.open("rb") as file:
            found = _KEY.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return found and found[1].decode()
