"""Coverage-guided fuzzing of every parser with Atheris (libFuzzer).

    python test/fuzz/fuzz.py [--seconds 20 | --runs N] [--jobs 2] [--keep DIR] [TARGET…]

spends the seconds on the targets in equal parts, or tries N inputs of each, however long that takes. Each target has a
process of its own and starts from ``corpus/``. Prints a JSON
object: for each target the inputs tried and the faults found; an input that makes a fault is kept in DIR (default:
``test/fuzz/found``). Exit code 1 where there was one.
"""

import argparse
import ctypes
import json
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_ONE_INPUT_S = 20
_RUNS_S = 600  # of one target, on a machine however busy
_SERVER = get_context("forkserver")


def fuzz_one(name: str, limit: str, seconds: float, keep: Path, seed: int) -> dict[str, object]:
    """Fuzz one target in a process of its own, up to libFuzzer's limit or the first fault.

    A process that takes much longer than ``seconds`` is killed, which counts as a fault.
    """
    with tempfile.TemporaryDirectory() as folder:
        new, log = Path(folder) / "new", Path(folder) / "log"
        new.mkdir()
        options = [
            limit,
            f"-timeout={_ONE_INPUT_S}",
            "-rss_limit_mb=4096",
            "-max_len=16384",
            f"-seed={seed}",
            f"-artifact_prefix={keep}/{name}-",
            "-print_final_stats=1",
        ]
        process = _SERVER.Process(target=_child, args=(name, [str(new), str(CORPUS / name), *options], log))
        process.start()
        process.join(seconds + 3 * _ONE_INPUT_S)
        if process.is_alive():
            process.kill()
            process.join()
        said, failed = log.read_text(errors="replace"), process.exitcode != 0
    counts = re.findall(r"number_of_executed_units: *(\d+)|^#(\d+)\t", said, re.MULTILINE)
    return {"tried": max([int(a or b) for a, b in counts], default=0), "fault": said[-3000:] if failed else None}


def _child(name: str, arguments: list[str], log: Path) -> None:
    """Run libFuzzer in this process, which it ends."""
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    import atheris
    import SimpleITK as sitk
    from instrumented import targets

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    atheris.Setup([sys.argv[0], *arguments], lambda data: targets.run(name, data) and None)
    try:
        atheris.Fuzz()
    finally:
        # libFuzzer keeps the input that made a fault when the process exits, which multiprocessing does by os._exit.
        ctypes.CDLL(None).exit(1)


def main() -> int:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=20)
    length.add_argument("--runs", type=int)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=HERE / "found")
    parser.add_argument("--seed", type=int, default=1)
    names = sorted(folder.name for folder in CORPUS.iterdir())
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: {' '.join(names)}")
    args = parser.parse_args()
    args.targets = args.targets or names
    args.keep.mkdir(parents=True, exist_ok=True)
    # Processes are forked from a server that has imported the targets.
    places = [str(HERE), str(HERE.parents[1])]
    sys.path[:0] = places
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    _SERVER.set_forkserver_preload(["instrumented"])
    seconds = args.seconds * args.jobs / len(args.targets)
    limit = f"-max_total_time={max(1, round(seconds))}"
    if args.runs is not None:
        limit, seconds = f"-runs={args.runs}", _RUNS_S
    with ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(lambda name: fuzz_one(name, limit, seconds, args.keep, args.seed), args.targets)
        report = dict(zip(args.targets, results, strict=True))
    print(json.dumps(report, indent=2))
    return int(any(result["fault"] for result in report.values()))


if __name__ == "__main__":
    sys.exit(main())
