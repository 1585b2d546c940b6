"""The platform's ``invoke`` interface: a web server that keeps the ensemble resident between cases.

``GET /health`` answers 200 once the weights are loaded; each ``POST /invoke`` reads the input folder, writes
the output folder and answers 201. A case that cannot be scored is answered with 422 and the error's one line,
a bug with 500; neither leaves an output, and the server goes on with the next case.
"""

import argparse
import logging
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from nodulemc.case import clear_output, run_case
from nodulemc.cli import exit_code_of
from nodulemc.ensemble import Ensemble
from nodulemc.errors import NoduleMCError
from nodulemc.options import add_ensemble_options, load_ensemble

PORT = 4743

logger = logging.getLogger(__name__)


def create_app(ensemble: Ensemble, *, input_dir: Path, output_dir: Path) -> FastAPI:
    """The server's application around an ensemble that is already loaded."""
    app = FastAPI(title="NoduleMC", openapi_url=None)
    one_at_a_time = threading.Lock()

    @app.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"status": "ready"})

    # A plain function, so that it runs in a worker thread and health checks are answered meanwhile.
    @app.post("/invoke")
    def invoke() -> JSONResponse:
        with one_at_a_time:
            try:
                predictions = run_case(input_dir, output_dir, ensemble)
            except NoduleMCError as error:
                logger.error("%s", error)
                return JSONResponse({"error": str(error)}, status_code=422)
        return JSONResponse({"nodules": len(predictions)}, status_code=201)

    return app


def main() -> None:
    """Load the ensemble, then serve until SIGTERM."""
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
    raise SystemExit(exit_code_of(main))
