"""Grand-Challenge's ``invoke`` interface: a web server that keeps the ensemble loaded between cases.

The server opens its port at once, before the slow imports, because Grand-Challenge's runner sleeps 10 s after a refused
connection. ``GET /health`` answers 503 until the ensemble is loaded, then 200. Each ``POST /invoke`` waits for this,
reads the input folder, writes the output folder and answers 201. If a case cannot be scored, the answer is 422 with the
error's one line; a bug gives 500. Neither leaves an output, and the server goes on with the next case.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nodulemc.errors import ConfigError, NoduleMCError
from nodulemc.util.extras import check_extra

if TYPE_CHECKING:
    from fastapi import FastAPI

    from nodulemc.ensemble.ensemble import Ensemble

# The runner sends SIGKILL 5 s after SIGTERM.
_PATIENCE_S = 3

logger = logging.getLogger(__name__)


def create_app(ensemble: Future[Ensemble], *, input_dir: Path, output_dir: Path, writing: threading.Lock) -> FastAPI:
    """Make the server's application.

    Args:
        ensemble: A future that is done once the ensemble is loaded.
        input_dir: Grand-Challenge's input folder. Links on the way are followed anew for each case.
        output_dir: Grand-Challenge's output folder, as the input folder.
        writing: A lock that is held while an output is being written.
    """
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    from nodulemc.grand_challenge.case import clear_output, score_case, write_output

    app = FastAPI(title="NoduleMC", openapi_url=None)
    one_at_a_time = threading.Lock()

    # On the event loop, so that it answers however many cases wait.
    @app.get("/health")
    async def health() -> JSONResponse:
        if not ensemble.done() or ensemble.exception():
            return JSONResponse({"status": "loading"}, status_code=503)
        return JSONResponse({"status": "ready"})

    # A plain function runs in a worker thread and leaves the event loop free.
    @app.post("/invoke")
    def invoke() -> JSONResponse:
        if ensemble.exception():  # which waits for the end of loading; the server ends with that error
            return JSONResponse({"error": "the ensemble cannot be loaded"}, status_code=503)
        with one_at_a_time:
            try:
                output = clear_output(output_dir)
                predictions = score_case(input_dir, ensemble.result)
                with writing:
                    write_output(output, predictions)
            except NoduleMCError as error:
                print(f"error: {error}", file=sys.stderr)
                return JSONResponse({"error": str(error)}, status_code=422)
        if caveat := ensemble.result().caveat:
            logger.warning("%s", caveat)
        return JSONResponse({"nodules": len(predictions)}, status_code=201)

    return app


def serve(load: Callable[[], Ensemble], *, host: str, port: int, input_dir: Path, output_dir: Path) -> None:
    """Listen, load the ensemble, and score cases until a signal ends the process (SIGTERM with code 0).

    Args:
        load: Returns the ensemble; it is called in another thread.
        host: The address to listen on.
        port: The port to listen on.
        input_dir: Grand-Challenge's input folder.
        output_dir: Grand-Challenge's output folder.

    Raises:
        ConfigError: the address cannot be listened on, or the extra is not installed.
        FileError: an old output cannot be removed.
        NoduleMCError: the ensemble cannot be loaded.
    """
    writing = threading.Lock()
    with _ending_on_signals(writing), ExitStack() as unserved:
        listener = unserved.enter_context(_listen(host, port))
        check_extra("serve")
        import uvicorn

        from nodulemc.grand_challenge.case import clear_output

        clear_output(output_dir)
        # uvicorn leaves the signals alone where it is not in the main thread.
        threads = ThreadPoolExecutor(2)
        ensemble = threads.submit(load)
        app = create_app(ensemble, input_dir=input_dir, output_dir=output_dir, writing=writing)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        serving = threads.submit(server.run, [listener])
        unserved.pop_all()  # the server closes it
        try:
            ensemble.result()
            print(f"ready on {host}:{port}", flush=True)
            serving.result()
        finally:
            server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections from now on; they wait until they are answered."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # Python adds "(while attempting to bind on address …)", which the message says anyway.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ConfigError(f"cannot listen ({reason})", f"{host}:{port}", "give another --host or --port") from error


@contextmanager
def _ending_on_signals(writing: threading.Lock) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process at once; the current case leaves no output.

    A thread waits for the signals. Python runs handlers in the main thread only, but the system may give a signal to
    another thread, which does not wake the main one.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)  # as set_wakeup_fd demands

    def end() -> None:
        for number in iter(lambda: told.recv(1), b""):
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                # Never given back: no output is written from now on, and none is half written.
                writing.acquire(timeout=_PATIENCE_S)
                if number[0] == signal.SIGINT:
                    print("interrupted", file=sys.stderr, flush=True)
                os._exit(130 if number[0] == signal.SIGINT else 0)

    waiting = threading.Thread(target=end, daemon=True)
    waiting.start()
    fd_before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        tell.close()
        waiting.join()
        told.close()
