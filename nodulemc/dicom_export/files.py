"""The DICOM objects' files: ``<SeriesInstanceUID>_seg.dcm`` and ``<SeriesInstanceUID>_sr.dcm`` in one folder.

highdicom and pydicom take a while to import, so they are imported only where needed.
"""

import io
import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from nodulemc.ct.volume import Volume
from nodulemc.ensemble.manifest import EnsembleManifest, read_manifest
from nodulemc.errors import CaseError, ConfigError, ImageError
from nodulemc.measure.mask import NoduleMask
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction
from nodulemc.util.extras import check_extra
from nodulemc.util.files import make_folder, none_on_failure, remove_old, write_atomically

logger = logging.getLogger(__name__)


def check_dicom(folder: Path, ct: Path) -> None:
    """Before any work, check that highdicom is there and the CT is a folder, and make the folder for the objects.

    Raises:
        ConfigError: highdicom is not installed, or the CT is not a folder.
        FileError: the folder cannot be made or written.
    """
    if not ct.is_dir():
        raise ConfigError(
            "--dicom with a CT that is no DICOM series", ct,
            "give the folder with its DICOM slices, or use --masks and --output",
        )  # fmt: skip
    check_extra("dicom")
    make_folder(folder)


def has_masks(resources: Path | None) -> bool:
    """Return whether an ensemble makes masks. If not, log a warning about the missing objects or values.

    Raises:
        EnsembleError: the folder cannot be used.
    """
    found = read_manifest(resources).segments
    if not found:
        logger.warning("the ensemble has no decoders: there is no SEG, and the SR has no sizes")
    return found


def prepare_dicom(folder: Path, volume: Volume, nodules: Sequence[Nodule], inputs: Iterable[Path]) -> None:
    """Before the network runs, check that the objects can be made, and remove those of an earlier run.

    Args:
        folder: The folder for the objects.
        volume: The CT.
        nodules: Its nodules.
        inputs: The files and folders that must not be replaced.

    Raises:
        ImageError: The CT's instances lack values that the objects must state, or there is no nodule.
        CaseError: an object would replace an input.
        FileError: an earlier object cannot be removed.
    """
    from nodulemc.dicom_export.source import read_source

    source = read_source(volume)
    if not nodules:
        raise ImageError("--dicom without a nodule", volume.source, "leave it out: an SR has at least one finding")
    paths = dicom_paths(folder, volume)
    taken = {path.resolve() for path in (*inputs, *(one.file.path for one in volume.slices))}
    for path in paths:
        if path.resolve() in taken:
            raise CaseError("the DICOM object would replace an input", path, "name another folder")
    for note in source.emptied:
        logger.warning("%s", note)
    for path in paths:
        remove_old(path)


def dicom_paths(folder: Path, volume: Volume) -> tuple[Path, Path]:
    """Return the paths of the SEG and the SR."""
    return folder / f"{volume.series_uid}_seg.dcm", folder / f"{volume.series_uid}_sr.dcm"


def write_dicom(
    folder: Path,
    volume: Volume,
    predictions: Sequence[NodulePrediction],
    masks: Sequence[NoduleMask],
    manifest: EnsembleManifest,
    *,
    calibrated: bool,
) -> list[Path]:
    """Write the SR and, if a nodule has a mask, the SEG: all of them or none.

    Args:
        folder: The folder for the objects.
        volume: The CT, checked by ``prepare_dicom``.
        predictions: The predictions for its nodules, with measurements for those with masks.
        masks: The masks in the same order. Empty if the ensemble makes none.
        manifest: The ensemble's manifest.
        calibrated: Whether its calibration was applied.

    Returns:
        The files: the SEG, if there is one, and the SR.

    Raises:
        FileError: a file cannot be written.
    """
    from nodulemc.dicom_export.findings import algorithm_of, findings_of
    from nodulemc.dicom_export.measurement_report import make_report
    from nodulemc.dicom_export.segmentation import make_segmentation
    from nodulemc.dicom_export.source import read_source

    source = read_source(volume)
    algorithm = algorithm_of(manifest, calibrated=calibrated)
    findings = findings_of(predictions, masks, source.series_uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's of names without "^", which anonymisers give
        seg = make_segmentation(source, findings, algorithm) if any(finding.segment for finding in findings) else None
        report = make_report(source, findings, algorithm, seg)
    objects = [(path, made) for path, made in zip(dicom_paths(folder, volume), (seg, report), strict=True) if made]
    with none_on_failure([path for path, _ in objects]):
        for path, made in objects:
            stream = io.BytesIO()
            made.save_as(stream, enforce_file_format=True)
            write_atomically(path, stream.getvalue())
    return [path for path, _ in objects]
