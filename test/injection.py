"""Faults done to the real program, `inference.py` on `test/input`: what is left in the output folder, and how it ended.

Used by `test/faults/` with few repetitions and by `scripts/reliability.py` with many.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nodulemc.output.multiple_points import OUTPUT_NAME

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, str(REPOSITORY / "inference.py"), "--input", str(REPOSITORY / "test" / "input"),
           "--device", "cpu", "--precision", "fp32"]  # fmt: skip
POINTS = 2  # in test/input


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        code: exit code; minus the signal's number where one killed it.
        state: "none" (the output folder is empty or gone), "complete" (it holds the whole result and nothing else),
            or "broken".
        stderr: what the program said.
        seconds: how long it ran.
    """

    code: int
    state: str
    stderr: str
    seconds: float


def state_of(output: Path) -> str:
    left = [path.name for path in output.iterdir()] if output.is_dir() else []
    if not left:
        return "none"
    try:
        points = json.loads((output / OUTPUT_NAME).read_bytes())["points"]
    except (OSError, ValueError, KeyError):
        return "broken"
    whole = left == [OUTPUT_NAME] and len(points) == POINTS and all(0 <= p["probability"] <= 1 for p in points)
    return "complete" if whole else "broken"


def start(output: Path, **options) -> subprocess.Popen:
    return subprocess.Popen([*PROGRAM, "--output", str(output)], stderr=subprocess.PIPE, text=True, **options)


def ended(process: subprocess.Popen, output: Path, started: float) -> Ending:
    _, stderr = process.communicate(timeout=120)
    return Ending(process.returncode, state_of(output), stderr, time.perf_counter() - started)


def undisturbed(output: Path, **options) -> Ending:
    started = time.perf_counter()
    return ended(start(output, **options), output, started)


def signalled(output: Path, number: signal.Signals, after: float) -> Ending:
    """Send a signal ``after`` seconds."""
    started = time.perf_counter()
    process = start(output)
    time.sleep(after)
    process.send_signal(number)
    return ended(process, output, started)


def at_random_moments(folder: Path, number: signal.Signals, times: int, within: float, seed: int) -> list[Ending]:
    """Runs that are signalled at a random moment of the first ``within`` seconds."""
    rng = random.Random(seed)  # noqa: S311, no secret
    return [signalled(made(folder / str(k)), number, rng.uniform(0.02, within)) for k in range(times)]


def killed_while_writing(output: Path, step: str) -> Ending:
    """SIGKILL at a system call of the write: "fsync" (content written, no name yet) or "link" (before its name)."""
    return prepared(output, f"import os, signal\nos.{step} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n")


def prepared(output: Path, code: str) -> Ending:
    """Run in a process that runs some code first."""
    code += f"import runpy, sys\nsys.argv = {[*PROGRAM[1:], '--output', str(output)]!r}\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    return ended(process, output, started)


def vanishing_output(output: Path) -> Ending:
    """The output folder is removed while the case runs: when it reads the ensemble."""
    code = (
        "import shutil, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('ensemble.json'):\n"
        f"        shutil.rmtree({str(output)!r}, ignore_errors=True)\n"
        "sys.addaudithook(hook)\n"
    )
    return prepared(output, code)


def with_memory(output: Path, mib: int) -> Ending:
    """The process may take only so much address space."""
    limit = (mib << 20, mib << 20)
    return undisturbed(output, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))


def can_mount() -> bool:
    """Whether this process may mount a file system of its own (root, in Linux)."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(tried, capture_output=True, check=False).returncode == 0
    )


def on_file_system(output: Path, options: str, before: str = "true", after: str = "true") -> Ending:
    """Run with a tmpfs of the given mount options as output folder, shell commands before and after mounting it."""
    kept = made(output.with_name(f"{output.name}-kept"))
    script = (
        f"mount -t tmpfs -o {options} none {output} && cd {output} && {before} && mount -o remount,{options} {output}; "
    )
    script += f'"$@"; code=$?; {after}; cp -a {output}/. {kept}/; exit $code'
    command = ["unshare", "--mount", "bash", "-c", script, "bash", *PROGRAM, "--output", str(output)]
    started = time.perf_counter()
    return ended(subprocess.Popen(command, stderr=subprocess.PIPE, text=True), kept, started)


def full_disk(output: Path) -> Ending:
    return on_file_system(output, "size=8k", before="(cat /dev/zero >filler 2>/dev/null || true)", after="rm filler")


def read_only(output: Path) -> Ending:
    return on_file_system(output, "ro")


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
