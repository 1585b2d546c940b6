"""All measurements that need a GPU, in one command of at most seven minutes.

    python benchmarks/gpu.py

Each part runs in its own process and within its own time. So a part that fails, hangs or crashes does not disturb the
others, and keeps its rows so far. The table is printed as it grows and kept in results.json. A trial without a GPU uses
few and shrunk patches, and says nothing about speed:

    python benchmarks/gpu.py --device cpu --small

docs/speed.md explains the rows and the needs of a bare machine.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from gpu_parts.nodules import CUBES
from gpu_parts.row import Row
from gpu_parts.setting import Setting, find_ensemble
from measure import machine, record

from nodulemc.ensemble.manifest import PACKAGED_MODEL
from nodulemc.ensemble.precision import choose_device
from nodulemc.program import exit_code_of

# Seconds for each part. Together with the pauses between them they are seven minutes.
LIMITS = {
    "right": 60,
    "kernels": 20,
    "loaded": 30,
    "ways": 65,
    "cold": 55,
    "data": 15,
    "robust": 30,
    "training": 65,
    "compiled": 60,
}
# A small run may be on a slow machine with other work.
_SMALL_TIMES = 10
_END_S = 5
ENDED = "the part did not end by itself"


def main() -> None:
    """Run the parts or, in a part's own process, one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="only try the benchmark itself out; nothing is kept")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=[*LIMITS], metavar="PART", help=" ".join(LIMITS))
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--patches", type=Path, metavar="FILE.npz", help="from gpu_parts/nodules.py")
    parser.add_argument("--cubes", type=Path, default=CUBES, metavar="DIR", help="real nodules: ct/ and table.csv")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.into:
        measure_part(args)
    else:
        sys.exit(run_parts(args))


def measure_part(args: argparse.Namespace) -> None:
    """Write one part's rows, each as soon as it exists."""
    setting = Setting(args.device, args.small, args.resources, args.patches, args.cubes)
    part = importlib.import_module(f"gpu_parts.{args.parts[0]}")
    with args.into.open("a") as file:
        for row in part.rows(setting):
            file.write(row.to_json() + "\n")
            file.flush()


def run_parts(args: argparse.Namespace) -> int:
    """Run each part, print and keep its rows. Return 1 if one did not finish."""
    choose_device(args.device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    table: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        ensemble = Path(temporary) / "ensemble"
        ensemble.mkdir()
        args.resources, words = find_ensemble(args.resources, ensemble)
        print(f"{machine()}\n{words}", flush=True)
        try:
            for part in args.parts:
                table[part] = []
                limit = LIMITS[part] * (_SMALL_TIMES if args.small else 1)
                for row in run_part(part, command_of(args, part), limit, Path(temporary)):
                    table[part].append(row)
                    print(f"{part:9}{row.text()}", flush=True)
        finally:
            keep(args, words, table)
    return int(any(row.name == ENDED for rows in table.values() for row in rows))


def command_of(args: argparse.Namespace, part: str) -> list[str]:
    """Return the command of a part's own process, without the place for its rows."""
    options = ["--device", args.device, "--resources", args.resources, "--cubes", args.cubes, "--parts", part]
    options += ["--small"] * args.small + (["--patches", args.patches] if args.patches else [])
    return [sys.executable, *map(str, (__file__, *options))]


def run_part(part: str, command: list[str], limit: float, folder: Path) -> Iterator[Row]:
    """Yield a part's rows as they come, and one more if the part failed or its time was up.

    Args:
        part: The part's name.
        command: The command that starts it, without the file for its rows.
        limit: The part's time in seconds.
        folder: The folder for its rows and its output.
    """
    rows, log = folder / f"{part}.jsonl", folder / f"{part}.log"
    rows.touch()
    with log.open("w") as output, rows.open() as lines:
        # The part has its own session, so that the processes it started end with it.
        process = subprocess.Popen(
            [*command, "--into", str(rows)], stdout=output, stderr=output, start_new_session=True
        )
        start = time.monotonic()
        try:
            running = True
            while running:
                running = process.poll() is None and time.monotonic() < start + limit
                yield from _complete(lines)
                time.sleep(0.1 * running)
            late = process.poll() is None
        finally:
            # A process that hangs in the driver may not end even if it is killed.
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(_END_S)
    yield Row("the part's time", time.monotonic() - start, "s", f"of {limit:g}")
    if late:
        yield Row(ENDED, None, "", f"stopped after its {limit:g} s", False)
    elif process.returncode:
        yield Row(ENDED, None, "", f"exit code {process.returncode}: {_last_line(log)}", False)


def _complete(lines: IO[str]) -> Iterator[Row]:
    """Yield the rows that are written completely."""
    while True:
        place = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(place)
            return
        yield Row(**json.loads(line))


def _last_line(log: Path) -> str:
    said = log.read_text(errors="replace").strip().splitlines()
    return said[-1][:200] if said else "it said nothing"


def keep(args: argparse.Namespace, words: str, table: dict[str, list[Row]]) -> None:
    """Record the table, except for a small run, whose figures mean nothing."""
    if not args.small:
        parts = {part: [row._asdict() for row in rows] for part, rows in table.items()}
        record(f"gpu_{args.device}", {"ensemble": words, "parts": parts})


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
