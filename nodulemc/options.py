"""Options that several commands share, and the ensemble that they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.errors import CaseError
from nodulemc.hardware import PRECISIONS
from nodulemc.option_types import whole_number

if TYPE_CHECKING:
    from nodulemc.ensemble.ensemble import Ensemble

DEVICES = ("auto", "cpu", "cuda")
RESAMPLES = 2000


def add_ensemble_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--resources``, ``--device`` and ``--precision``."""
    parser.add_argument(
        "--resources",
        type=Path,
        metavar="DIR",
        help="ensemble folder (default: /opt/ml/model where one is mounted, else the packaged resources/)",
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a CUDA GPU where there is one")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="default: the fastest the device and ensemble allow",
    )


def add_calibrated_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--calibrated``."""
    parser.add_argument(
        "--calibrated", action="store_true", help="apply the calibration that `nodulemc calibrate` has stored"
    )


def add_measure_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--measure``."""
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also measure each nodule's mask: volume, axes, HU, mass (needs decoders)",
    )


def add_bootstrap_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--bootstrap``."""
    parser.add_argument(
        "--bootstrap",
        type=whole_number(1),
        default=RESAMPLES,
        metavar="N",
        help=f"patient-level resamples (default: {RESAMPLES})",
    )


def require_inputs(*paths: Path | None) -> None:
    """Raise CaseError if a file or folder is missing. None stands for one that was not given."""
    for path in filter(None, paths):
        _require_input(path)


def _require_input(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        raise CaseError(f"cannot read the file or folder ({error.strerror})", path, "check the path") from error


def can_segment(args: argparse.Namespace) -> bool:
    """Return whether the ensemble named by the options has a decoder.

    Raises:
        EnsembleError: the folder cannot be used.
    """
    from nodulemc.ensemble.manifest import read_manifest

    return read_manifest(args.resources).segments


def load_ensemble(args: argparse.Namespace, *, masks: bool = False, calibrated: bool = False) -> Ensemble:
    """Load the ensemble named by the options.

    Raises:
        EnsembleError: the folder cannot be used.
        ConfigError: the device does not exist.
    """
    from nodulemc.ensemble.ensemble import Ensemble  # `--help` and opening a server's port do not need it

    return Ensemble.load(
        args.resources, device=args.device, precision=args.precision, masks=masks, calibrated=calibrated
    )
