"""The pages of a cohort: one for each scan, and an index.

Each page states its result. So a later run finds pages that are missing or show another result, whatever has happened
in between. A scan's result is stored first; then its page is written, completely or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nodulemc.cohort.names import file_names
from nodulemc.cohort.state import CohortState, findings, read_state
from nodulemc.columns import LUNG_RADS
from nodulemc.errors import printable
from nodulemc.measure.risk import CATEGORIES
from nodulemc.output.detailed import further_cells
from nodulemc.report.page import Finding, Origin, case_page
from nodulemc.report.pictures import View
from nodulemc.report.templates import render
from nodulemc.util.files import make_folder, remove_old, write_atomically
from nodulemc.util.locks import holding

if TYPE_CHECKING:
    from nodulemc.cohort.identity import Identity
    from nodulemc.cohort.results_db import Listed, Record
    from nodulemc.cohort.scoring import Scored
    from nodulemc.prediction import NodulePrediction

INDEX_NAME = "index.html"
# The measures and risk in the index, each scan's highest: heading, digits, and the step of the filter.
COLUMNS = {
    "long_axis_mm": ("Longest axis, mm", "%.1f", "1"),
    "brock_full": ("Brock, full", "%.3f", "0.01"),
    "brock_parsimonious": ("Brock, parsimonious", "%.3f", "0.01"),
    "mayo": ("Mayo", "%.3f", "0.01"),
    "herder": ("Herder", "%.3f", "0.01"),
    LUNG_RADS: ("Lung-RADS by size", "%s", None),
}
FOLDER = "scans"
_LOCK_NAME = ".index.lock"
_VERSION = 1  # raise this number if pages of the same results are worth making again
_KEY = re.compile(rb'<meta name="nodulemc-result" content="([0-9a-f]{64})">')
_HEAD_BYTES = 4096  # the start of a page, which has the key of its result


class Pages:
    """A folder with a cohort's pages."""

    def __init__(self, folder: Path, scans: Iterable[str], origin: Origin) -> None:
        """Make the folder.

        Args:
            folder: The folder for the index; the pages are in ``scans`` below it.
            scans: The names of all scans of the cohort, from which the pages' names are made.
            origin: The origin of the results.

        Raises:
            FileError: the folder cannot be made or written.
        """
        make_folder(folder / FOLDER)
        self._origin = origin
        self._paths = _paths(folder, scans)

    def has(self, listed: Listed, record: Record) -> bool:
        """Return whether a result's page exists."""
        return _key_in(self._paths[record.scan]) == _key(listed, record)

    def write(self, listed: Listed, record: Record, scored: Scored) -> None:
        """Write a scan's page.

        Args:
            listed: The scan.
            record: Its stored result.
            scored: The scored scan.

        Raises:
            FileError: it cannot be written.
        """
        views = scored.read.views
        masks = map(View.on_scan, views, scored.masks) if scored.masks else repeat(None)
        shown = map(Finding, findings(listed, record), views, masks)
        page = case_page(record.scan, [*shown], self._origin, key=_key(listed, record))
        write_atomically(self._paths[record.scan], page.encode())


def write_index(folder: Path, cohort: Path) -> int:
    """Write the index of all scans, and remove pages of theirs whose result is not current.

    Args:
        folder: The pages' folder.
        cohort: The cohort's folder.

    Returns:
        The number of scans with results but without a page.

    Raises:
        FileError: a file cannot be written or removed.
    """
    make_folder(folder / FOLDER)
    with holding(folder / _LOCK_NAME, wait=True):
        # Pages first: whatever others add meanwhile, each result is kept before its page is written.
        keys = {path: _key_in(path) for path in (folder / FOLDER).iterdir()}
        state = read_state(cohort)
        paths = _paths(folder, (listed.scan for listed in state.listed))
        current = {record.scan: _key(listed, record) for listed, record in state.done}
        for scan, path in paths.items():
            if keys.get(path) not in (None, current.get(scan)):
                remove_old(path)
        with_page = {scan: path for scan, path in paths.items() if scan in current and keys.get(path) == current[scan]}
        rows = [_row(listed, state, with_page.get(listed.scan)) for listed in state.listed]
        write_atomically(folder / INDEX_NAME, index_page(rows, state.plan.ensemble).encode())
    return len(current) - len(with_page)


def index_page(rows: Sequence[Mapping[str, Any]], ensemble: Identity) -> str:
    """Return the index as HTML; it has the columns of measures and risk that at least one scan has."""
    return render(
        "nodulemc.report",
        "index.html.jinja",
        script="index.js",
        rows=rows,
        columns={name: about for name, about in COLUMNS.items() if any(name in row["further"] for row in rows)},
        categories=CATEGORIES,
        statuses=list(dict.fromkeys(row["status"] for row in rows)),
        ensemble=ensemble,
    )


def _row(listed: Listed, state: CohortState, page: Path | None) -> dict[str, Any]:
    """Return a scan's row in the index."""
    record = state.records.get(listed.scan)
    link = page and f"{FOLDER}/{quote(page.name)}"
    row: dict[str, Any] = {"scan": printable(listed.scan), "link": link, "status": "to do", "error": "",
                           "nodules": [], "highest": None, "further": {}, "warnings": []}  # fmt: skip
    if record is None:
        return row
    if record.error is not None:
        return row | {"status": "failed", "error": str(record.error)}
    found = findings(listed, record)
    nodules = [(printable(p.nodule.name or str(k)), p.probability) for k, p in enumerate(found, start=1)]
    return row | {
        "status": "done",
        "nodules": nodules,
        "highest": max((probability for _, probability in nodules), default=None),
        "further": _further(found),
        "warnings": list(dict.fromkeys(warning for p in found for warning in p.warnings)),
    }


def _further(found: Sequence[NodulePrediction]) -> dict[str, float | str]:
    """Return the highest of each measure and risk among a scan's nodules, by column."""
    cells = [further_cells(prediction) for prediction in found]
    values = {column: [own[column] for own in cells if own.get(column) is not None] for column in COLUMNS}
    return {column: max(known) for column, known in values.items() if known}


def _paths(folder: Path, scans: Iterable[str]) -> dict[str, Path]:
    return {scan: folder / FOLDER / name for scan, name in file_names(scans, ".html").items()}


def _key(listed: Listed, record: Record) -> str:
    """Return a key of everything that a result and its page, which also shows the risk, depend on."""
    inputs = record.fingerprint
    content = [_VERSION, record.scan, record.points_hash, inputs.ct, inputs.points, record.weights, record.precision]
    content += [asdict(listed.clinical)] if listed.clinical else []
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _key_in(path: Path) -> str | None:
    """Return the key in a page, or None if there is no such page."""
    try:
        with path.open("rb") as file:
            found = _KEY.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return found and found[1].decode()
