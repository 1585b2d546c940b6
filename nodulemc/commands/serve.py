"""A web server that keeps the ensemble loaded and scores one case after the other: Grand-Challenge's `invoke`.

GET /health answers 503 while the ensemble is being loaded, then 200. POST /invoke scores the case in the input folder
and answers 201 once the result is in the output folder (docs/container.md). Ctrl-C or SIGTERM ends the server.
"""

import argparse
from pathlib import Path

from nodulemc.option_types import whole_number
from nodulemc.options import add_ensemble_options, load_ensemble

EXAMPLE = "nodulemc serve --port 4743 --input case --output results"
_PORT = 4743  # Grand-Challenge's port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=_PORT, help=f"default: {_PORT}")
    parser.add_argument("--input", type=Path, default=Path("/input"), metavar="DIR", help="each case's folder")
    parser.add_argument(
        "--output", type=Path, default=Path("/output"), metavar="DIR", help="folder for the likelihoods"
    )
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> None:
    """Serve until a signal ends the process."""
    from nodulemc.grand_challenge.server import serve

    serve(lambda: load_ensemble(args), host=args.host, port=args.port, input_dir=args.input, output_dir=args.output)
