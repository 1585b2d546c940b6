"""The container's entry point: score one case from /input to /output, then exit."""

import os
import signal
import sys
from pathlib import Path

from nodulemc.program import exit_code_of, use_utf8


def main() -> None:
    """Parse the arguments, run the case, write nothing but the output file."""
    # A container's first process ignores SIGTERM unless it handles it. There is nothing to clean up, as the output gets
    # its name when it is whole, and an exception might surface in the midst of a library's import.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    from nodulemc.grand_challenge.case import run_case
    from nodulemc.options import add_ensemble_options, load_ensemble
    from nodulemc.usage import Parser

    parser = Parser("inference.py", __doc__)
    parser.add_argument("--input", type=Path, default=Path("/input"), help="the case's folder")
    parser.add_argument("--output", type=Path, default=Path("/output"), help="folder for the likelihoods")
    add_ensemble_options(parser)
    args = parser.parse_args(sys.argv[1:])
    try:
        run_case(args.input, args.output, lambda: load_ensemble(args))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # done, one way or the other; only the exit code is left to give


if __name__ == "__main__":
    use_utf8()
    sys.exit(exit_code_of(main))
