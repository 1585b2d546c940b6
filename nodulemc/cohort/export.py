"""A cohort's results as files: CSV, Parquet, and one platform JSON per scan."""

import csv
import fcntl
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nodulemc.case import platform_json
from nodulemc.cohort.extras import import_extra
from nodulemc.cohort.store import Listed, Record
from nodulemc.cohort.view import View, view
from nodulemc.errors import CaseError, ConfigError
from nodulemc.evaluation.predictions import SEED_PREFIX
from nodulemc.json_files import write_atomically, write_json_atomically
from nodulemc.points import scan_name
from nodulemc.prediction import NodulePrediction

CSV_NAME = "predictions.csv"
PARQUET_NAME = "predictions.parquet"
FAILURES_NAME = "failures.csv"
JSON_FOLDER = "json"
_LOCK_NAME = ".export.lock"


@dataclass(frozen=True)
class _Scan:
    """A scan's results as they are exported; its nodules have their names in the cohort."""

    record: Record
    labels: list[int | None]
    predictions: list[NodulePrediction]


def export(folder: Path, output: Path, *, json: bool = False) -> View:
    """Write what is known by now of the cohort in ``folder`` into ``output``.

    ``predictions.csv`` (AnnotationID, label, probability, seeds), ``predictions.parquet`` (these, then scan, point and
    warnings), ``failures.csv`` (scan, error) and, where wanted, ``json/<scan>.json``; all in the manifest's order.

    Returns:
        The state that was written.

    Raises:
        ConfigError: there is no cohort, or pyarrow is missing.
        CaseError: a file cannot be written.
    """
    view(folder)  # nothing is made where there is no cohort
    try:
        output.mkdir(parents=True, exist_ok=True)
        # Shards that end at the same time: the last one to write has seen what all the others have done.
        with (output / _LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = view(folder)
            scans = _named(state)
            seeds = [SEED_PREFIX + seed.removeprefix(SEED_PREFIX) for seed in state.plan.ensemble.seeds]
            columns = ["AnnotationID", "label", "probability", *seeds]
            rows = list(_rows(scans, columns))
            _write_csv(output / CSV_NAME, columns, ([row[column] for column in columns] for row in rows))
            _write_parquet(output / PARQUET_NAME, seeds, rows)
            _write_csv(
                output / FAILURES_NAME, ["scan", "error"], ([record.scan, str(record.error)] for record in state.failed)
            )
            if json:
                _write_json(output / JSON_FOLDER, scans)
    except OSError as error:
        raise ConfigError(f"cannot write ({error.strerror})", output, "name a folder that can be written") from error
    return state


def _named(state: View) -> list[_Scan]:
    """The scans with results; a nodule without a name, or with one that is not its alone, gets <scan>#<number>."""
    done = state.done
    names = Counter(p.nodule.name for _, record in done for p in record.predictions)
    scans = []
    for listed, record in done:
        predictions = []
        for number, p in enumerate(record.predictions, start=1):
            own = p.nodule.name and names[p.nodule.name] == 1
            name = p.nodule.name if own else f"{record.scan}#{number}"
            predictions.append(replace(p, nodule=replace(p.nodule, name=name)))
        scans.append(_Scan(record, _labels(listed, len(predictions)), predictions))
    return scans


def _labels(listed: Listed, nodules: int) -> list[int | None]:
    return listed.labels if isinstance(listed.labels, list) else [listed.labels] * nodules


def _rows(scans: Sequence[_Scan], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for scan in scans:
        for label, p in zip(scan.labels, scan.predictions, strict=True):
            row = dict(zip(columns, (p.nodule.name, label, p.probability, *p.per_seed), strict=True))
            point = dict(zip(("CoordX", "CoordY", "CoordZ"), p.nodule.point, strict=True))
            yield row | {"scan": scan.record.scan} | point | {"warnings": "; ".join(p.warnings)}


def _write_csv(path: Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue().encode(), CaseError)


def _write_parquet(path: Path, seeds: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    pyarrow, parquet = import_extra("pyarrow", "cohort"), import_extra("pyarrow.parquet", "cohort")
    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"AnnotationID": text, "label": pyarrow.int8(), "probability": number, **dict.fromkeys(seeds, number)}
    kinds |= {"scan": text, "CoordX": number, "CoordY": number, "CoordZ": number, "warnings": text}
    content = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), pyarrow.schema(list(kinds.items()))), content)
    write_atomically(path, content.getvalue(), CaseError)


def _write_json(folder: Path, scans: Sequence[_Scan]) -> None:
    folder.mkdir(exist_ok=True)
    stems = [scan_name(Path(scan.record.scan)) for scan in scans]
    repeated = Counter(stems)
    for scan, stem in zip(scans, stems, strict=True):
        name = stem if repeated[stem] == 1 else scan.record.scan.replace("/", "_")
        write_json_atomically(folder / f"{name}.json", platform_json(scan.predictions), CaseError)
