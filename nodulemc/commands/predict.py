"""Malignancy probabilities for nodules in one CT, from any common file format."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.errors import CaseError
from nodulemc.options import add_ensemble_options, load_ensemble, require_inputs
from nodulemc.words import counted

if TYPE_CHECKING:
    import numpy as np

    from nodulemc.points import Nodule
    from nodulemc.prediction import NodulePrediction
    from nodulemc.quality import Notes
    from nodulemc.volume import Volume

EXAMPLE = "nodulemc predict ct.nii.gz --points nodules.mrk.json --output nodules.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "ct",
        type=Path,
        metavar="CT",
        help=".mha, .mhd, .nii, .nii.gz or .nrrd file, or a folder with a DICOM series, in it or below",
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
        help="also write each nodule's mask (needs an ensemble with decoders)",
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="apply the calibration that `nodulemc calibrate` has stored"
    )
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> None:
    """Predict, write or print the results, and say where they are."""
    from nodulemc.json_files import no_empty_folders

    folders = [args.output.parent] if args.output else []
    with no_empty_folders(*folders, *filter(None, [args.masks])):
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    from nodulemc.json_files import make_folder, none_on_failure
    from nodulemc.masks import write_masks
    from nodulemc.prediction import score, with_notes
    from nodulemc.results import clear_output, table, write_results
    from nodulemc.side_by_side import side_by_side

    if args.output:
        clear_output(args.output, (args.ct, args.points))
    require_inputs(args.ct, args.points)
    if args.masks:
        make_folder(args.masks, CaseError)
    (volume, nodules, seen), ensemble = side_by_side(
        lambda: _read(args),
        lambda: load_ensemble(args, masks=args.masks is not None, calibrated=args.calibrated),
    )
    predictions = score(nodules, *seen, ensemble, show_progress=True)
    # The output comes last: where it is, the masks are complete.
    masks = []
    if args.masks:
        masks, notes = write_masks(args.masks, volume, nodules, seen[0], ensemble)
        predictions = with_notes(predictions, notes)
    with none_on_failure(masks):
        if args.output:
            write_results(args.output, predictions, ensemble.manifest, calibrated=args.calibrated)
        else:
            print(table(predictions, ensemble.manifest, calibrated=args.calibrated), flush=True)
    if args.output:
        print(f"written: {args.output}: {_in_words(predictions)}; {ensemble.manifest.origin}")
    if args.masks:
        print(f"written: {args.masks}: {counted(len(masks), 'mask')}")


def _in_words(predictions: Sequence[NodulePrediction]) -> str:
    nodules = counted(len(predictions), "nodule")
    probabilities = sorted(prediction.probability for prediction in predictions)
    return f"{nodules}, probability {probabilities[0]:.4f} to {probabilities[-1]:.4f}" if probabilities else nodules


def _read(args: argparse.Namespace) -> tuple[Volume, list[Nodule], tuple[np.ndarray, Notes]]:
    """The CT, its nodules, and their patches with what is to be said of them."""
    from nodulemc.masks import mask_paths
    from nodulemc.points import read_points
    from nodulemc.prediction import look
    from nodulemc.volume import read_volume

    volume = read_volume(args.ct, series=args.series)
    nodules = read_points(args.points, volume)
    if args.masks:
        mask_paths(args.masks, nodules, (args.ct, args.points))
    return volume, nodules, look(volume, nodules)
