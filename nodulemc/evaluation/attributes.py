"""Predicted attributes, compared with the readers' mean ratings and with the agreement of two readers.

Nodules without a label count here, too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from nodulemc.arrays import Array
from nodulemc.columns import ATTRIBUTE_PREFIX
from nodulemc.data.nodule_table import check_rating
from nodulemc.evaluation.bootstrap import PatientBootstrap, interval95
from nodulemc.evaluation.predictions import filled, patients_of
from nodulemc.ratings import ATTRIBUTES, READERS
from nodulemc.util.table_rows import TableRow


def attribute_figures(
    rows: Sequence[TableRow], table: Mapping[str, TableRow] | None, resamples: int
) -> dict[str, dict[str, Any]]:
    """Return rank correlation and mean absolute error of each attribute that is both predicted and rated.

    Args:
        rows: The predictions' rows, each nodule once (``nodulemc.evaluation.submission.Submission.rows``).
        table: The table's rows by AnnotationID. Readers' mean ratings count if they have the column ``readers``. A
            single reader's ratings are in columns such as ``texture_reader1``.
        resamples: The number of resamples of patients, for the intervals.

    Returns:
        A dict by attribute, with ``nodules``, ``spearman`` and ``mae``, the last two also with ``_ci95``. ``whole`` has
            the same figures for predictions rounded to whole numbers, as readers rate. ``readers`` has them for two
            readers of one nodule; it is None if no nodule has two. Figures that do not exist are None.

    Raises:
        TableError: an attribute or a rating is off its scale. The message names the line.
    """
    pairs = [(row, table[row.cells["AnnotationID"]]) for row in rows] if table else []
    pairs = [(row, rated) for row, rated in pairs if READERS in rated.cells]
    names = [name for name in ATTRIBUTES if any(row.cells.get(ATTRIBUTE_PREFIX + name) for row, _ in pairs)]
    if not names:
        return {}
    ids = [row.cells["AnnotationID"] for row, _ in pairs]
    columns = [filled(row) | filled(rated) for row, rated in pairs]
    bootstrap = PatientBootstrap(patients_of(ids, columns, str(rows[0].path))[0], resamples)
    figures = {}
    for name in names:
        found = np.array([check_rating(row, ATTRIBUTE_PREFIX + name, name) for row, _ in pairs])
        means = np.array([check_rating(rated, name, name) for _, rated in pairs])
        known = np.flatnonzero(~np.isnan(found) & ~np.isnan(means))
        if len(known):
            pairing = means[known], np.arange(len(known)), np.ones(len(known)), bootstrap, known
            readings = [_single_readings(pairs[k][1], name) for k in known]
            figures[name] = {
                "nodules": len(known),
                **_agreement(found[known], *pairing),
                "whole": {"nodules": len(known), **_agreement(np.rint(found[known]), *pairing)},
                "readers": _between_readers(readings, bootstrap, known),
            }
    return figures


def rank_correlation(first: Array, second: Array, weights: Array) -> Array:
    """Return Spearman's rank correlation of pairs that count several times, or in part.

    Args:
        first: Values (n,).
        second: The values (n,) that they are paired with.
        weights: The weight of each pair (B, n).

    Returns:
        (B,). It is NaN if the pairs that count have only one value on a side.
    """
    (a, a_varies), (b, b_varies) = _ranks(first, weights), _ranks(second, weights)
    total = weights.sum(axis=1, keepdims=True)
    a, b = (ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (weights * a * b).sum(axis=1) / np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    return np.where(a_varies & b_varies, found, np.nan)


def _ranks(values: Array, weights: Array) -> tuple[Array, Array]:
    """Return mid-ranks minus one half (B, n), and whether there is more than one rank (B,)."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    middles = np.cumsum(counts, axis=1) - counts / 2
    ranks = np.empty(weights.shape)
    ranks[:, order] = middles[:, group]
    return ranks, (counts > 0).sum(axis=1) > 1


def _agreement(
    first: Array,
    second: Array,
    nodule: Array,
    shares: Array,
    bootstrap: PatientBootstrap,
    positions: Array,
) -> dict[str, Any]:
    """Return the figures of pairs of values (n,), each with the index of its nodule and the share that it counts."""

    def statistics(weights: Array) -> Array:
        counting = weights[:, nodule] * shares
        with np.errstate(invalid="ignore"):
            error = counting @ np.abs(first - second) / counting.sum(axis=1)
            return np.stack([rank_correlation(first, second, counting), error], axis=1)

    whole = statistics(np.ones((1, len(positions))))[0]
    drawn = bootstrap.apply(statistics, positions)
    figures: dict[str, Any] = {}
    for name, value, resampled in zip(("spearman", "mae"), whole, drawn.T, strict=True):
        figures |= {name: None if np.isnan(value) else float(value), f"{name}_ci95": interval95(resampled)}
    return figures


def _between_readers(
    readings: Sequence[Sequence[float]], bootstrap: PatientBootstrap, positions: Array
) -> dict[str, Any] | None:
    """Return the figures of every two readers of one nodule, in both orders. Each nodule counts once."""
    twos = [
        (a, b, k, 1 / (len(own) * (len(own) - 1))) for k, own in enumerate(readings) for a, b in permutations(own, 2)
    ]
    if not twos:
        return None
    first, second, nodule, shares = map(np.array, zip(*twos, strict=True))
    rated = sum(len(own) > 1 for own in readings)
    return {"nodules": rated, **_agreement(first, second, nodule, shares, bootstrap, positions)}


def _single_readings(row: TableRow, name: str) -> list[float]:
    return [value for value in _readings(row, name) if not np.isnan(value)]


def _readings(row: TableRow, name: str) -> Iterator[float]:
    for column in row.cells:
        if re.fullmatch(rf"{name}_reader\d+", column):
            yield check_rating(row, column, name)
