"""Turn checkpoints of the public LUNA25 3D baseline and of MClab's public code into an ensemble folder.

Each member keeps its own classifier and input size, so both kinds may vote in one ensemble. Checkpoints are read as
tensors only; nothing in them is executed.
"""

import argparse
from pathlib import Path

from nodulemc.options import require_inputs
from nodulemc.util.text import counted

EXAMPLE = "nodulemc import-reference seed1.pth seed2.pth seed3.pth --output my_ensemble"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="PTH", help="one checkpoint per member")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="ensemble folder to write")
    parser.add_argument(
        "--keep-decoder", action="store_true", help="keep MClab's segmentation decoders, for `predict --masks`"
    )


def run(args: argparse.Namespace) -> None:
    """Import, and print what was written."""
    from nodulemc.util.files import make_folder

    require_inputs(*args.checkpoints)
    make_folder(args.output)
    from nodulemc.ensemble.reference_import import import_reference

    manifest = import_reference(args.checkpoints, args.output, keep_decoder=args.keep_decoder)
    members = counted(len(manifest.members), "member")
    print(f"written: {args.output}: {members}; largest difference from fp32: {manifest.deviations}")
