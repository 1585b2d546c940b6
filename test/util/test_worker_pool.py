import math
import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from conftest import hear_interrupts

from nodulemc.errors import ConfigError
from nodulemc.util.worker_pool import SPAWN, in_order

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers: int):
    assert list(in_order(operator.neg, range(20), workers)) == [-k for k in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_comes_in_its_turn(workers: int):
    results = in_order(math.sqrt, [4, 9, -1, 16], workers)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(results)


def test_items_are_not_taken_far_ahead():
    """Results that nobody has taken yet would fill the memory."""
    taken = []
    results = in_order(operator.neg, (taken.append(k) or k for k in range(100)), 2)
    for k in range(10):
        assert next(results) == -k
        assert len(taken) <= k + 4
    results.close()


def test_killed_worker_is_an_error():
    with pytest.raises(ConfigError, match="a worker process was killed: --workers 2: memory may be short"):
        list(in_order(os._exit, range(3), 2))


def test_workers_end_with_a_killed_process():
    """They hold the other end of its standard output, which is closed when the last of them has ended."""
    code = """if __name__ == "__main__":
        import os
        from nodulemc.util.worker_pool import SPAWN, in_order
        results = in_order(abs, range(9), 2)
        for _ in range(9):
            next(results)
        os.kill(os.getpid(), 9)"""
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert killed.communicate(timeout=60) == (b"", None)
    assert killed.returncode == -9


@pytest.mark.parametrize("size", [0, 50_000_000])
def test_an_early_end_gives_up_what_is_under_way(tmp_path, size):
    """Long work ends at once, also beside results that are being sent, and a terminal's interrupt reaches all."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys, time
from pathlib import Path
from nodulemc.program import exit_code_of
from nodulemc.util.worker_pool import SPAWN, in_order
def work(item):
    Path(str(item)).touch()
    time.sleep(0.05 if {size} else 600)
    return bytes({size})
if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: [*in_order(work, iter(range(10**6)), 2)] and None))""")
    running = subprocess.Popen(
        [sys.executable, program],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "1").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    assert running.communicate(timeout=20) == (None, "interrupted\n")
    assert running.returncode == 130


def test_closing_ends_the_workers():
    results = in_order(time.sleep, [0, 600, 600, 600], 2)
    next(results)
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 10


def test_interrupts_are_the_main_process_to_handle():
    """Else each process that a terminal's Ctrl-C finds importing prints a traceback."""
    with ProcessPoolExecutor(1, SPAWN) as pool:
        assert signal.SIGINT in pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
