"""Malignancy probabilities for nodules in one CT, from any common file format."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodulemc.errors import ConfigError
from nodulemc.option_types import any_number
from nodulemc.options import (
    add_calibrated_option,
    add_ensemble_options,
    add_measure_option,
    can_segment,
    load_ensemble,
    require_inputs,
)
from nodulemc.prior_options import add_prior_options, check_prior_options
from nodulemc.util.text import counted

if TYPE_CHECKING:
    from nodulemc.arrays import Array
    from nodulemc.ct.volume import Volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.measure.growth import Prior
    from nodulemc.measure.mask import NoduleMask
    from nodulemc.points.nodules import Nodule
    from nodulemc.prediction import NodulePrediction
    from nodulemc.quality import ScanWarnings

logger = logging.getLogger(__name__)

EXAMPLE = "nodulemc predict ct.nii.gz --points nodules.mrk.json --output nodules.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "ct",
        type=Path,
        metavar="CT",
        help=".mha, .mhd, .nii, .nii.gz, .nrrd or .tif file, or a folder with a DICOM series, in it or below",
    )
    parser.add_argument(
        "--series", metavar="UID", help="SeriesInstanceUID of the series to read, where a folder holds several CTs"
    )
    parser.add_argument(
        "--points",
        type=Path,
        required=True,
        metavar="FILE",
        help="Grand-Challenge .json; .csv with CoordX, CoordY, CoordZ or x, y, z; 3D Slicer .mrk.json, .json or .fcsv; "
        "or a segmentation: a label image, a DICOM SEG or an RTSTRUCT, whose regions' centres of mass are taken",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=".json or .csv (default: a table on stdout)")
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="also write each nodule's mask, and one label image for all, as NIfTI and for 3D Slicer, on the CT's grid "
        "(needs decoders)",
    )
    parser.add_argument(
        "--markups",
        type=Path,
        metavar="FILE.mrk.json",
        help="also write the points for 3D Slicer, with their probabilities as labels and colours",
    )
    add_measure_option(parser)
    parser.add_argument(
        "--clinical",
        type=Path,
        metavar="FILE.json",
        help="also give the risk by the Brock, Mayo and Herder models and Lung-RADS: Grand-Challenge's clinical "
        "information, with further keys (docs/measurements.md); implies --measure",
    )
    parser.add_argument("--age", type=any_number, metavar="YEARS", help="the patient's age, for the risk models")
    parser.add_argument("--gender", choices=("female", "male"), help="the patient's gender, for the risk models")
    add_prior_options(parser)
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="also write a DICOM SEG and SR of a CT that is a DICOM series, for an archive (docs/dicom.md); "
        "implies --measure where the ensemble has decoders",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="also write a page with each nodule's pictures, numbers and what they mean; implies --measure where the "
        "ensemble has decoders (docs/report.md)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also show on the page which parts of the pictures move the probability, as far as that has held on "
        "phantoms for this ensemble; takes a while (docs/report.md)",
    )
    add_calibrated_option(parser)
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> None:
    """Predict, write or print the results, and print their place."""
    from nodulemc.util.files import no_empty_folders

    folders = [path.parent for path in (args.output, args.markups, args.report) if path]
    with no_empty_folders(*folders, *filter(None, [args.masks, args.dicom])):
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    from nodulemc.output.detailed import clear_output, table, write_results
    from nodulemc.prediction import predict_patches, side_by_side
    from nodulemc.util.files import make_folder, none_on_failure

    check_prior_options(args)
    if args.output:
        clear_output(args.output, [*_inputs(args)])
    if args.markups:
        _clear_markups(args)
    require_inputs(*_inputs(args))
    if args.masks:
        make_folder(args.masks)
    segments = _check_further(args) or bool(args.masks or args.measure or _asks_risk(args) or args.prior)
    (volume, nodules, seen, known, prior), ensemble = side_by_side(
        lambda: _read(args),
        lambda: load_ensemble(args, masks=segments, calibrated=args.calibrated),
    )
    # The output comes last. If it exists, all other files are complete.
    if segments:
        predictions, masks, files = _segment(args, volume, nodules, seen, ensemble, known, prior)
    else:
        predictions, masks, files = predict_patches(nodules, *seen, ensemble, show_progress=True), [], []
    with none_on_failure(files):
        objects = _write_dicom(args, volume, predictions, masks, ensemble)
    with none_on_failure([*files, *objects, *filter(None, [args.markups, args.report])]):
        if args.markups:
            from nodulemc.output.slicer_markups import write_markups

            write_markups(args.markups, predictions, ensemble.manifest)
        _write_report(args, volume, predictions, masks, seen[0], ensemble)
        if args.output:
            write_results(args.output, predictions, ensemble.manifest, calibrated=args.calibrated)
        else:
            print(table(predictions, ensemble.manifest, calibrated=args.calibrated), flush=True)
    if args.output:
        print(f"written: {args.output}: {_in_words(predictions)}; {ensemble.manifest.origin}")
    if args.markups:
        print(f"written: {args.markups}: {counted(len(predictions), 'point')} for 3D Slicer")
    if args.masks:
        print(f"written: {args.masks}: {counted(len(nodules), 'mask')}, all in {files[-1].name}")
    if args.dicom:
        print(f"written: {args.dicom}: {' and '.join(path.name for path in objects)}")
    if args.report:
        print(f"written: {args.report}: the page of {counted(len(nodules), 'nodule')}")


def _check_further(args: argparse.Namespace) -> bool:
    """Check the requirements of ``--dicom`` and ``--report``, and whether the ensemble has masks for them."""
    segments = False
    if args.explain:
        _check_explanation(args)
    if args.dicom:
        from nodulemc.dicom_export.files import check_dicom, has_masks

        check_dicom(args.dicom, args.ct)
        segments = has_masks(args.resources)
    if args.report:
        from nodulemc.report.files import prepare_report

        prepare_report(args.report, _inputs(args))
        segments = segments or can_segment(args)
    return segments


def _check_explanation(args: argparse.Namespace) -> None:
    """Check that there is a page for the explanation. Warn if the ensemble has nothing that may be explained."""
    from nodulemc.ensemble.manifest import read_manifest
    from nodulemc.report.explain_check import read_checks
    from nodulemc.report.words import not_explained

    if not args.report:
        raise ConfigError("--explain without --report", "nodulemc predict", "name the page with --report FILE.html")
    checks = read_checks(read_manifest(args.resources))
    if not any(check.passed for check in (checks or {}).values()):
        logger.warning("%s", not_explained(checks))


def _write_dicom(
    args: argparse.Namespace,
    volume: Volume,
    predictions: list[NodulePrediction],
    masks: list[NoduleMask],
    ensemble: Ensemble,
) -> list[Path]:
    if not args.dicom:
        return []
    from nodulemc.dicom_export.files import write_dicom

    return write_dicom(args.dicom, volume, predictions, masks, ensemble.manifest, calibrated=args.calibrated)


def _write_report(
    args: argparse.Namespace,
    volume: Volume,
    predictions: list[NodulePrediction],
    masks: list[NoduleMask],
    patches: Array,
    ensemble: Ensemble,
) -> None:
    if args.report:
        from nodulemc.report.files import write_report

        explained = patches if args.explain else None
        write_report(args.report, volume, predictions, masks, ensemble, calibrated=args.calibrated, explained=explained)


def _inputs(args: argparse.Namespace) -> Iterator[Path]:
    return filter(None, (args.ct, args.points, args.clinical, args.prior, args.prior_points))


def _clear_markups(args: argparse.Namespace) -> None:
    from nodulemc.output.detailed import clear_output

    if args.output and args.markups.resolve() == args.output.resolve():
        raise ConfigError("--markups and --output are one file", args.markups, "name two files")
    clear_output(args.markups, [*_inputs(args)], (".mrk.json",))


def _segment(
    args: argparse.Namespace,
    volume: Volume,
    nodules: Sequence[Nodule],
    seen: tuple[Array, ScanWarnings],
    ensemble: Ensemble,
    known: list[dict[str, Any]] | None,
    prior: Prior | None,
) -> tuple[list[NodulePrediction], list[NoduleMask], list[Path]]:
    """Return predictions with the requested facts from their masks, the masks, and their files."""
    from nodulemc.measure.mask import score_and_segment
    from nodulemc.measure.mask_files import write_masks
    from nodulemc.measure.nodule import measured

    predictions, masks = score_and_segment(volume, nodules, *seen, ensemble)
    if args.measure or known is not None or args.dicom or args.report or prior:
        predictions = measured(predictions, volume, masks, known)
    if prior:
        from nodulemc.measure.growth import compared

        predictions = compared(predictions, volume, masks, prior, ensemble)
    return predictions, masks, write_masks(args.masks, volume, predictions, masks) if args.masks else []


def _in_words(predictions: Sequence[NodulePrediction]) -> str:
    nodules = counted(len(predictions), "nodule")
    probabilities = sorted(prediction.probability for prediction in predictions)
    # One nodule has a number, not a range.
    ends = [f"{probability:.4f}" for probability in (*probabilities[:1], *probabilities[1:][-1:])]
    return f"{nodules}, probability {' to '.join(ends)}" if ends else nodules


def _read(
    args: argparse.Namespace,
) -> tuple[Volume, list[Nodule], tuple[Array, ScanWarnings], list[dict[str, Any]] | None, Prior | None]:
    """Return the CT, its nodules, their patches with warnings, the inputs of the risk models, and the earlier scan."""
    from nodulemc.ct.volume import read_volume
    from nodulemc.points.reading import read_points
    from nodulemc.prediction import prepare_inputs

    volume = read_volume(args.ct, series=args.series)
    nodules = read_points(args.points, volume)
    if args.masks:
        _check_names(args, volume, nodules)
    if args.dicom:
        from nodulemc.dicom_export.files import prepare_dicom

        prepare_dicom(args.dicom, volume, nodules, [*_inputs(args)])
    return volume, nodules, prepare_inputs(volume, nodules), _known(args, nodules), _prior(args, volume)


def _check_names(args: argparse.Namespace, volume: Volume, nodules: Sequence[Nodule]) -> None:
    """Refuse names of masks' files that would replace each other or an input."""
    from nodulemc.measure.mask_files import label_image_paths, mask_paths

    mask_paths(args.masks, nodules, [*_inputs(args)])
    label_image_paths(args.masks, volume, [*_inputs(args)])


def _known(args: argparse.Namespace, nodules: Sequence[Nodule]) -> list[dict[str, Any]] | None:
    if not _asks_risk(args):
        return None
    from nodulemc.measure.clinical import completed, read_clinical

    known = read_clinical(args.clinical, nodules) if args.clinical else [{} for _ in nodules]
    return completed(known, {"age": args.age, "gender": args.gender})


def _asks_risk(args: argparse.Namespace) -> bool:
    return bool(args.clinical or args.age is not None or args.gender)


def _prior(args: argparse.Namespace, volume: Volume) -> Prior | None:
    if not args.prior:
        return None
    from nodulemc.measure.growth import read_prior

    return read_prior(args.prior, args.prior_points, volume, (args.date, args.prior_date), series=args.prior_series)
