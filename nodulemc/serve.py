"""The platform's ``invoke`` interface: a web server that keeps the ensemble resident between cases.

``GET /health`` answers 200 once the weights are loaded; each ``POST /invoke`` reads the input folder, writes
the output folder and answers 201. A case that cannot be scored is answered with 422 and the error's one line,
a bug with 500; neither leaves an output, and the server goes on with the next case.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.cli import exit_code_of
from nodulemc.errors import NoduleMCError
from nodulemc.options import add_ensemble_options, load_ensemble

if TYPE_CHECKING:
    from fastapi import FastAPI

    from nodulemc.ensemble import Ensemble

PORT = 4743

logger = logging.getLogger(__name__)


def create_app(ensemble: Ensemble, *, input_dir: Path, output_dir: Path) -> FastAPI:
    """The server's application around an ensemble that is already loaded."""
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    from nodulemc.case import run_case

    app = FastAPI(title="NoduleMC", openapi_url=None)
    one_at_a_time = threading.Lock()

    # On the event loop, so that it answers however many cases wait.
    @app.get("/health")
    async def health():
        return JSONResponse({"status": "ready"})

    # A plain function runs in a worker thread and leaves the event loop free.
    @app.post("/invoke")
    def invoke():
        with one_at_a_time:
            try:
                predictions = run_case(input_dir, output_dir, lambda: ensemble)
            except NoduleMCError as error:
                print(f"error: {error}", file=sys.stderr)
                return JSONResponse({"error": str(error)}, status_code=422)
        if ensemble.caveat:
            logger.warning("%s", ensemble.caveat)
        return JSONResponse({"nodules": len(predictions)}, status_code=201)

    return app


def main() -> None:
    """Load the ensemble, then serve until SIGTERM, which ends with code 0."""
    # A container's first process ignores SIGTERM unless it handles it, and loading takes a moment. There is nothing to
    # clean up until the server runs, and an exception might surface in the midst of a library's import.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    import uvicorn

    from nodulemc.case import clear_output

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, default=Path("/input"), help="each case's folder")
    parser.add_argument("--output", type=Path, default=Path("/output"), help="folder for the likelihoods")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")  # noqa: S104
    add_ensemble_options(parser)
    args = parser.parse_args()
    clear_output(args.output)
    app = create_app(load_ensemble(args), input_dir=args.input, output_dir=args.output)
    uvicorn.run(app, host=args.host, port=PORT, log_level="warning")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
