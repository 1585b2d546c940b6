"""Programs in processes of their own that need not import everything anew, for what starts many of them.

They are forked from a server that has imported what takes seconds. Tests of a start itself use ``subprocess``.
"""

import os
import runpy
import sys
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(["nodulemc.training.trainer", "torch.utils.tensorboard", "nodulemc.cohort.pages"])


def start(program: Path, *words: object, **environment: str) -> BaseProcess:
    """As ``python PROGRAM WORD…`` with these environment variables besides; its output is the tests'."""
    process = _SERVER.Process(target=_run, args=(str(program), [*map(str, words)], environment))
    process.start()
    return process


def code_of(process: BaseProcess, timeout_s: float = 120) -> int:
    """A process's exit code; one that takes longer is killed."""
    process.join(timeout_s)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _run(program: str, words: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = [program, *words]
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="__main__")
