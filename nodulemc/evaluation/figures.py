"""The report's charts."""

import numpy as np
from grand_challenge_metrics.roc import get_bootstrapped_roc_ci_curves
from markupsafe import Markup
from sklearn.metrics import precision_recall_curve, roc_curve

from nodulemc.arrays import Array
from nodulemc.evaluation.metrics import GRID, OPERATING_POINTS, Evaluation
from nodulemc.evaluation.predictions import Predictions
from nodulemc.evaluation.reliability import BINS
from nodulemc.evaluation.svg import Chart
from nodulemc.util.text import counted

_TENTHS = tuple(np.linspace(0, 1, 6).round(1).tolist())
_HISTOGRAM_BINS = 25
_CLASSES = ((1, "malignant"), (0, "benign"))


def roc_chart(evaluation: Evaluation) -> Markup:
    """Draw the ROC curve with its band over patients, Grand-Challenge's band over nodules, and the operating points."""
    predictions, metrics = evaluation.submission.predictions, evaluation.metrics
    chart = Chart(f"ROC curve, area {metrics['auc']:.3f}")
    chart.axes("1 − specificity", "Sensitivity", _TENTHS, _TENTHS)
    chart.area(_outline(GRID, evaluation.roc_band), "band")
    # The library never draws the last nodule. If the others are of one class, it draws for ever.
    if len(np.unique(predictions.labels[:-1])) == 2:
        nodule_band = get_bootstrapped_roc_ci_curves(predictions.probabilities, predictions.labels)
        for edge in (nodule_band.low_tpr_vals, nodule_band.high_tpr_vals):
            chart.line(list(zip(nodule_band.fpr_vals, edge, strict=True)), "other-band")
    chart.line([(0, 0), (1, 1)], "reference")
    false_rate, true_rate, _ = roc_curve(predictions.labels, predictions.probabilities)
    chart.line(list(zip(false_rate, true_rate, strict=True)), "curve")
    for name in OPERATING_POINTS:
        target = float(name)
        sensitivity = metrics["sensitivity_at_specificity"][name]["value"]
        specificity = metrics["specificity_at_sensitivity"][name]["value"]
        chart.dot(1 - target, sensitivity, "point", f"sensitivity {sensitivity:.3f} at specificity {name}")
        chart.dot(1 - specificity, target, "point", f"specificity {specificity:.3f} at sensitivity {name}")
    return chart.render()


def precision_chart(evaluation: Evaluation) -> Markup:
    """Draw the precision-recall curve with its band over patients, and the precision of calling all malignant."""
    predictions, metrics = evaluation.submission.predictions, evaluation.metrics
    chart = Chart(f"Precision-recall curve, average precision {metrics['average_precision']:.3f}")
    chart.axes("Sensitivity (recall)", "Precision", _TENTHS, _TENTHS)
    chart.area(_outline(GRID[1:], evaluation.precision_band[:, 1:]), "band")
    share = metrics["malignant"] / metrics["nodules"]
    chart.line([(0, share), (1, share)], "reference")
    precision, recall, _ = precision_recall_curve(predictions.labels, predictions.probabilities)
    # Between two thresholds, precision belongs to the higher sensitivity, so the curve has steps, not slopes.
    corners = [(recall[0], precision[0])]
    for left, right in zip(range(len(recall) - 1), range(1, len(recall)), strict=True):
        corners += [(recall[right], precision[left]), (recall[right], precision[right])]
    chart.line(_thinned(corners[:-1]), "curve")
    return chart.render()


def calibration_chart(evaluation: Evaluation) -> Markup:
    """Draw the observed share of malignant nodules against the mean probability of each bin."""
    bins, (low, high) = evaluation.reliability, evaluation.observed_band
    chart = Chart(f"Calibration plot, expected error {evaluation.metrics['expected_calibration_error']:.3f}")
    chart.axes("Predicted probability", "Observed share malignant", _TENTHS, _TENTHS)
    chart.line([(0, 0), (1, 1)], "reference")
    filled = [k for k in range(BINS) if bins.count[0, k]]
    chart.line([(bins.predicted[0, k], bins.observed[0, k]) for k in filled], "thin curve")
    for k in filled:
        x, y = bins.predicted[0, k], bins.observed[0, k]
        if not np.isnan(low[k]):
            chart.line([(x, low[k]), (x, high[k])], "whisker")
        chart.dot(x, y, "point", f"{counted(int(bins.count[0, k]), 'nodule')}: predicted {x:.3f}, observed {y:.3f}")
    return chart.render()


def histograms(predictions: Predictions) -> Markup:
    """Draw probabilities of malignant nodules upwards and of benign ones downwards, each class on its own scale."""
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    chart = Chart("Histograms of probabilities by class", y=(-1.08, 1.08))
    chart.axes("Predicted probability", "Nodules in each bin", _TENTHS)
    for label, name in _CLASSES:
        counts = np.histogram(predictions.probabilities[predictions.labels == label], edges)[0]
        side = 1 if label else -1
        for k in np.flatnonzero(counts):
            span = (edges[k] + 0.003, edges[k + 1] - 0.003)
            note = f"{counted(counts[k], f'{name} nodule')}, probability {edges[k]:.2f} to {edges[k + 1]:.2f}"
            chart.bar(span, (0, side * counts[k] / counts.max()), name, note)
        chart.line([(0, side), (1, side)], "scale")
        chart.label(0, side, f"{counts.max()}", dx=-7, dy=4, anchor="end")
        # Good predictions leave these corners free.
        corner, anchor = (0, "start") if label else (1, "end")
        words = f"{name}, {counted(counts.sum(), 'nodule')}"
        chart.label(corner, side, words, dx=6 * side, dy=16 if label else -8, anchor=anchor)
    chart.line([(0, 0), (1, 0)], "baseline")
    chart.label(0, 0, "0", dx=-7, dy=4, anchor="end")
    return chart.render()


def _outline(x: Array, band: Array) -> list[tuple[float, float]]:
    """Return the outline of a band (2, G), without the places where it does not exist."""
    there = ~np.isnan(band).any(axis=0)
    x, (low, high) = x[there], band[:, there]
    return [*zip(x, low, strict=True), *zip(x[::-1], high[::-1], strict=True)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points without those that the eye cannot distinguish from the previous one."""
    kept = points[:1]
    for point in points[1:-1]:
        if max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) > 0.0015:
            kept.append(point)
    return [*kept, points[-1]]
