"""Options of `predict` about an earlier CT of the same patient."""

import argparse
from pathlib import Path

from nodulemc.errors import ConfigError
from nodulemc.option_types import iso_date


def add_prior_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--prior`` and its related options."""
    parser.add_argument(
        "--prior",
        type=Path,
        metavar="CT",
        help="also give each nodule's growth since this earlier CT, with --prior-points; implies --measure",
    )
    parser.add_argument("--prior-points", type=Path, metavar="FILE", help="the earlier CT's nodules, as --points")
    parser.add_argument("--prior-series", metavar="UID", help="the earlier CT's series, as --series")
    parser.add_argument(
        "--date", type=iso_date, metavar="YYYY-MM-DD", help="when CT was taken (default: as its DICOM header says)"
    )
    parser.add_argument(
        "--prior-date", type=iso_date, metavar="YYYY-MM-DD", help="when the earlier CT was taken (likewise)"
    )


def check_prior_options(args: argparse.Namespace) -> None:
    """Check the options as far as possible before any work.

    Raises:
        ConfigError: an option lacks another one.
    """
    if args.prior and not args.prior_points:
        raise ConfigError("--prior without --prior-points", "nodulemc predict", "name the earlier CT's nodules, too")
    alone = next((name for name in ("prior_points", "prior_series", "date", "prior_date") if getattr(args, name)), None)
    if alone and not args.prior:
        option = f"--{alone.replace('_', '-')}"
        raise ConfigError(f"{option} without --prior", "nodulemc predict", "name the earlier CT, or leave it out")
