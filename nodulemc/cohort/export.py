"""A cohort's results as files: CSV, Parquet, and one Grand-Challenge JSON per scan."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc.cohort.identity import Identity
from nodulemc.cohort.names import file_names
from nodulemc.cohort.results_db import Listed, Record
from nodulemc.cohort.state import CohortState, annotation_ids, findings, read_state, seen
from nodulemc.columns import (
    ATTRIBUTE_PREFIX,
    CALIBRATION,
    COORDINATES,
    ENSEMBLE,
    LUNG_RADS,
    PATIENT,
    RISK_MISSING,
    SEED_PREFIX,
    SEEN_IN_TRAINING,
    TRAINED_ON,
)
from nodulemc.ensemble.calibration import describe_calibration
from nodulemc.errors import CaseError, ConfigError
from nodulemc.output.detailed import further_cells
from nodulemc.output.multiple_points import multiple_points
from nodulemc.prediction import NodulePrediction
from nodulemc.util.csv_files import write_csv_atomically
from nodulemc.util.extras import import_extra
from nodulemc.util.files import make_folder, remove_old, write_atomically
from nodulemc.util.json_files import read_json, write_json_atomically
from nodulemc.util.locks import holding
from nodulemc.util.progress import QUIET_S, progress

CSV_NAME = "predictions.csv"
PARQUET_NAME = "predictions.parquet"
FAILURES_NAME = "failures.csv"
JSON_FOLDER = "json"
_JSON_LIST_NAME = ".written"  # not *.json, which `evaluate` takes for results
_CALIBRATED = ("uncalibrated", CALIBRATION)
_TEXTS = (
    "AnnotationID", PATIENT, "scan", "name", "warnings", LUNG_RADS, RISK_MISSING, CALIBRATION, ENSEMBLE, TRAINED_ON,
    SEEN_IN_TRAINING,
)  # fmt: skip
_LOCK_NAME = ".export.lock"


@dataclass(frozen=True)
class _Scan:
    """A scan's results for export.

    Attributes:
        names: Its nodules' own names; ``predictions`` have the cohort's.
        seen: The result of ``nodulemc.cohort.state.seen``; the predictions' warnings say the same.
    """

    listed: Listed
    record: Record
    labels: list[int | None]
    names: list[str | None]
    predictions: list[NodulePrediction]
    seen: str | None


def export(folder: Path, output: Path, *, json: bool = False) -> CohortState:
    """Write all current results of the cohort in ``folder`` into ``output``, in the manifest's order.

    - ``predictions.csv`` and ``predictions.parquet``: AnnotationID, label, probability, members, then PatientID, scan,
      the nodule's own name, point, warnings and, if they are known, attributes, measurements and risk. They also have
      the ensemble's SHA-256 and training data; for calibrated results the vote before and the calibration; and, if
      known, whether the ensemble was trained on the case.
    - ``failures.csv``: scan, error
    - ``json/<scan>.json``, if wanted

    Returns:
        The state that was written.

    Raises:
        ConfigError: there is no cohort, or pyarrow is missing.
        FileError: a file cannot be written.
    """
    read_state(folder)  # nothing is made where there is no cohort
    make_folder(output)
    try:
        # Shards that end at the same time: the last one to write has seen what all the others have done.
        with holding(output / _LOCK_NAME, wait=True):
            state = read_state(folder)
            scans = _named(state)
            ensemble = state.plan.ensemble
            seeds = [SEED_PREFIX + name.removeprefix(SEED_PREFIX) for name in ensemble.seeds]
            columns = ["AnnotationID", "label", "probability", *seeds]
            origin = {ENSEMBLE: ensemble.sha256, TRAINED_ON: ensemble.trained_on}
            nodules = list(_rows(scans, columns))
            measured = list(dict.fromkeys(name for _, p in nodules for name in further_cells(p)))
            unknown = dict.fromkeys(measured)
            rows = [
                row | _attributes(p, ensemble) | unknown | further_cells(p) | _before_calibration(p, ensemble) | origin
                for row, p in nodules
            ]
            columns += [PATIENT, "scan", "name", *COORDINATES, "warnings"]
            columns += [ATTRIBUTE_PREFIX + name for name in ensemble.attributes]
            columns += measured
            columns += _CALIBRATED if ensemble.calibration else ()
            columns += [ENSEMBLE, TRAINED_ON] if ensemble.sha256 else []
            columns += [SEEN_IN_TRAINING] if any(scan.seen for scan in scans) else []
            cells = [[row[column] for column in columns] for row in rows]
            write_csv_atomically(output / CSV_NAME, [columns, *cells])
            _write_parquet(output / PARQUET_NAME, columns, rows)
            failures = [(record.scan, str(record.error)) for record in state.failed]
            write_csv_atomically(output / FAILURES_NAME, [("scan", "error"), *failures])
            if json:
                names = file_names((listed.scan for listed in state.listed), ".json")
                _write_json(output / JSON_FOLDER, {names[scan.record.scan]: scan for scan in scans})
    except OSError as error:
        raise ConfigError(f"cannot write ({error.strerror})", output, "name a folder that can be written") from error
    return state


def written(output: Path, *, json: bool) -> str:
    """Describe in words what ``export`` has written."""
    names = [CSV_NAME, PARQUET_NAME, FAILURES_NAME, *([JSON_FOLDER] if json else [])]
    return f"written: {', '.join(str(output / name) for name in names)}"


def _named(state: CohortState) -> list[_Scan]:
    """Return the scans with results."""
    scans = []
    for listed, record in state.done:
        names = [p.nodule.name for p in record.predictions]
        predictions = [
            replace(p, nodule=replace(p.nodule, name=name))
            for p, name in zip(findings(listed, record), annotation_ids(listed, record), strict=True)
        ]
        scans.append(_Scan(listed, record, _labels(listed, len(names)), names, predictions, seen(listed, record)))
    return scans


def _labels(listed: Listed, nodules: int) -> list[int | None]:
    return listed.labels if isinstance(listed.labels, list) else [listed.labels] * nodules


def _rows(scans: Sequence[_Scan], columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], NodulePrediction]]:
    for scan in scans:
        for label, name, p in zip(scan.labels, scan.names, scan.predictions, strict=True):
            row = dict(zip(columns, (p.nodule.name, label, p.probability, *p.member_probabilities), strict=True))
            row |= {PATIENT: scan.listed.patient, "scan": scan.record.scan, "name": name, SEEN_IN_TRAINING: scan.seen}
            yield row | dict(zip(COORDINATES, p.nodule.point, strict=True)) | {"warnings": "; ".join(p.warnings)}, p


def _attributes(prediction: NodulePrediction, ensemble: Identity) -> dict[str, float]:
    names = (ATTRIBUTE_PREFIX + name for name in ensemble.attributes)
    return dict(zip(names, prediction.attributes, strict=True))


def _before_calibration(prediction: NodulePrediction, ensemble: Identity) -> dict[str, Any]:
    if ensemble.calibration is None:
        return {}
    vote = float(prediction.member_probabilities @ np.array(ensemble.vote_weights))
    return dict(zip(_CALIBRATED, (vote, describe_calibration(ensemble.calibration)), strict=True))


def _write_parquet(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    pyarrow, parquet = import_extra("pyarrow", "cohort"), import_extra("pyarrow.parquet", "cohort")
    kinds = dict.fromkeys(columns, pyarrow.float64()) | {"label": pyarrow.int8()}
    kinds |= {column: pyarrow.string() for column in columns if column in _TEXTS}
    kinds |= {column: pyarrow.int16() for column in columns if column == "size_mm"}
    content = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), pyarrow.schema(list(kinds.items()))), content)
    write_atomically(path, content.getvalue())


def _write_json(folder: Path, scans: Mapping[str, _Scan]) -> None:
    """Write one file for each scan, by the files' names, and remove files that only an earlier export wrote.

    A list in the folder always names the files that are ours.
    """
    make_folder(folder)
    listing = folder / _JSON_LIST_NAME
    earlier = _read_names(listing) if listing.exists() else set()
    write_json_atomically(listing, sorted(earlier | set(scans)))
    for name, scan in progress(scans.items(), len(scans), "JSON", quiet_s=QUIET_S):
        write_json_atomically(folder / name, multiple_points(scan.predictions))
    for name in earlier - set(scans):
        remove_old(folder / name)
    write_json_atomically(listing, sorted(scans))


def _read_names(listing: Path) -> set[str]:
    names = read_json(listing)
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CaseError("the list of exported files is damaged", listing, "remove it")
    return set(names)
