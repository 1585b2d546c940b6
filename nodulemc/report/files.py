"""Writing a case page. Its libraries are needed only if a page is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.errors import ConfigError
from nodulemc.util.extras import check_extra
from nodulemc.util.files import prepare_output, refuse_input, write_atomically

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ct.volume import Volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.measure.mask import NoduleMask
    from nodulemc.prediction import NodulePrediction
    from nodulemc.report.explain import Explanation

SUFFIX = ".html"
LIBRARIES = ("jinja2", "PIL")  # of the extra


def prepare_report(path: Path, inputs: Iterable[Path]) -> None:
    """Before any work, refuse an unusable path, make its folder, and remove an earlier run's page.

    Raises:
        ConfigError: a library is missing, the suffix is not .html, or the file is one of the inputs.
        FileError: the folder cannot be made or written, or the earlier page cannot be removed.
    """
    check_extra("report", *LIBRARIES)
    if path.suffix.lower() != SUFFIX:
        raise ConfigError("unknown type of report", path, f"name a {SUFFIX} file")
    refuse_input(path, inputs, "report")
    prepare_output(path)


def write_report(
    path: Path,
    volume: Volume,
    predictions: Sequence[NodulePrediction],
    masks: Sequence[NoduleMask],
    ensemble: Ensemble,
    *,
    calibrated: bool = False,
    explained: Array | None = None,
) -> None:
    """Write a scan's page, whole or not at all.

    Args:
        path: The .html file.
        volume: The CT.
        predictions: The predictions for its nodules.
        masks: The nodules' masks, on the CT's grid. Empty if the ensemble has no decoder.
        ensemble: The ensemble that made the predictions.
        calibrated: Whether its calibration was applied.
        explained: The nodules' patches, if the page is to explain their probabilities.

    Raises:
        FileError: the file cannot be written.
        EnsembleError: the explanations' checks are malformed, or a member's numbers overflow.
    """
    from nodulemc.report.page import Finding, Origin, case_page
    from nodulemc.report.pictures import look_at_nodule

    explanations: list[Explanation | None] = [None] * len(predictions)
    if explained is not None:
        from nodulemc.report.explain import explanations_of

        explanations = explanations_of(volume, predictions, masks, explained, ensemble)
    of_nodules: Sequence[NoduleMask | None] = masks or [None] * len(predictions)
    findings = [
        Finding(prediction, look_at_nodule(volume, prediction.nodule), mask, explanation)
        for prediction, mask, explanation in zip(predictions, of_nodules, explanations, strict=True)
    ]
    origin = Origin.of(ensemble, calibrated=calibrated)
    scan = volume.source.resolve().name
    page = case_page(scan, findings, origin, series=volume.series_uid, explains=explained is not None)
    write_atomically(path, page.encode())
