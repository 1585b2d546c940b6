"""``report.html``: one self-contained page, made from an evaluation."""

import re
from dataclasses import dataclass
from typing import Any

from nodulemc import __version__
from nodulemc.evaluation.figures import calibration_chart, histograms, precision_chart, roc_chart
from nodulemc.evaluation.metrics import OPERATING_POINTS, Evaluation
from nodulemc.evaluation.small_samples import LEAST_PATIENTS
from nodulemc.evaluation.training_cases import in_words
from nodulemc.evaluation.worst_cases import PatchOf, most_wrong
from nodulemc.report.templates import render

_SUBGROUP_NAMES = {"age": "Age (years)", "sex": "Sex", "diameter_mm": "Diameter (mm)"}

# Signs in the names of subgroups, in their printed form.
_SPOKEN = {">=": "≥ ", "-<": " to < ", "<": "< ", "-": "–"}
_SIGNS = re.compile("|".join(_SPOKEN))


@dataclass(frozen=True)
class ForestRow:
    """One line of the forest plot. Places are per cent of the axis.

    Attributes:
        name: The name of the group.
        nodules: The number of nodules.
        malignant: The number of malignant ones.
        auc: The AUC. None if the group has one class.
        interval: The 95 % interval of the AUC. None if there is none.
        caution: The caution for the interval. None if there is none.
        place: The AUC's place on the axis. None if there is no AUC.
        low: The place of the interval's lower end.
        high: The place of the interval's upper end.
    """

    name: str
    nodules: int
    malignant: int
    auc: float | None
    interval: list[float] | None
    caution: str | None
    place: float | None
    low: float | None
    high: float | None


def render_report(evaluation: Evaluation, patch_of: PatchOf = lambda _: None, note: str | None = None) -> str:
    """Return the page's HTML.

    Args:
        evaluation: The evaluation to show.
        patch_of: Returns a nodule's patch by AnnotationID, for pictures of the most wrong cases.
        note: A note on the predictions for the reader, shown above all figures.
    """
    predictions, metrics = evaluation.submission.predictions, evaluation.metrics
    axis_low, ticks = _forest_axis(metrics)
    forest = _forest(metrics, axis_low)
    return render(
        __package__,
        "report.html.jinja",
        filters={"interval": _interval, "number": _number},
        metrics=metrics,
        source=predictions.source,
        note=note,
        seen=in_words(metrics),
        version=__version__,
        operating_points=OPERATING_POINTS,
        roc=roc_chart(evaluation),
        precision=precision_chart(evaluation),
        calibration=calibration_chart(evaluation),
        histograms=histograms(predictions),
        forest=forest,
        cautions=any(row.caution for rows in forest.values() for row in rows),
        least=LEAST_PATIENTS,
        forest_ticks=[(tick, _place(tick, axis_low)) for tick in ticks],
        overall_place=_place(metrics["auc"], axis_low),
        missed=most_wrong(predictions, 1, patch_of),
        alarms=most_wrong(predictions, 0, patch_of),
    )


def _forest(metrics: dict[str, Any], axis_low: float) -> dict[str, list[ForestRow]]:
    """Return the forest plot's rows by heading."""
    groups = {"Whole set": {"All nodules": metrics}, "Fold": metrics["folds"], "Member": metrics["seeds"]}
    groups |= {_SUBGROUP_NAMES[name]: bands for name, bands in metrics["subgroups"].items()}
    return {
        heading: [_forest_row(name, figures, axis_low) for name, figures in rows.items()]
        for heading, rows in groups.items()
        if rows
    }


def _forest_row(name: str, figures: dict[str, Any], axis_low: float) -> ForestRow:
    auc, interval = figures["auc"], figures["auc_ci95"]
    return ForestRow(
        name=_SIGNS.sub(lambda sign: _SPOKEN[sign[0]], name),
        nodules=figures["nodules"],
        malignant=figures["malignant"],
        auc=auc,
        interval=interval,
        caution=figures["caution"],
        place=None if auc is None else _place(auc, axis_low),
        low=None if interval is None else _place(interval[0], axis_low),
        high=None if interval is None else _place(interval[1], axis_low),
    )


def _forest_axis(metrics: dict[str, Any]) -> tuple[float, list[float]]:
    """Return the axis' lower end, a multiple of 0.1 below all intervals, and its ticks up to 1."""
    groups = [metrics, *metrics["folds"].values(), *metrics["seeds"].values()]
    groups += [figures for bands in metrics["subgroups"].values() for figures in bands.values()]
    ends = [figures["auc_ci95"][0] for figures in groups if figures["auc_ci95"]]
    ends += [figures["auc"] for figures in groups if figures["auc"] is not None]
    tenths = min(9, int(min(ends) * 10))
    step = 1 if tenths >= 5 else 2
    return tenths / 10, [tick / 10 for tick in range(10, tenths - 1, -step)][::-1]


def _place(value: float, axis_low: float) -> float:
    return round(100 * (value - axis_low) / (1 - axis_low), 2)


def _interval(ends: list[float] | None, digits: int = 3) -> str:
    return "no interval" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
