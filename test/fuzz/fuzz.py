"""Coverage-guided fuzzing of every parser with Atheris (libFuzzer).

    python test/fuzz/fuzz.py [--seconds 20] [--jobs 2] [--keep DIR] [TARGET…]

spends the seconds on the targets in equal parts, each in processes of its own, starting from ``corpus/``. Prints a JSON
object: for each target the inputs tried and the faults found; an input that makes a fault is kept in DIR (default:
``test/fuzz/found``). Exit code 1 where there was one.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_ONE_INPUT_S = 20


def fuzz_one(name: str, seconds: float, keep: Path, seed: int) -> dict[str, object]:
    """Fuzz one target in a process of its own, up to its first fault."""
    with tempfile.TemporaryDirectory() as new:
        command = [sys.executable, __file__, "--child", name, new, str(CORPUS / name)]
        options = [
            f"-max_total_time={max(1, round(seconds))}",
            f"-timeout={_ONE_INPUT_S}",
            "-rss_limit_mb=4096",
            "-max_len=16384",
            f"-seed={seed}",
            f"-artifact_prefix={keep}/{name}-",
            "-print_final_stats=1",
        ]
        try:
            done = subprocess.run(
                [*command, *options], capture_output=True, text=True, errors="replace", check=False,
                timeout=seconds + 3 * _ONE_INPUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as hung:
            said, failed = (hung.stderr or b"").decode(errors="replace"), True
        else:
            said, failed = done.stderr, done.returncode != 0
    counts = re.findall(r"number_of_executed_units: *(\d+)|^#(\d+)\t", said, re.MULTILINE)
    return {"tried": max([int(a or b) for a, b in counts], default=0), "fault": said[-3000:] if failed else None}


def child(name: str, arguments: list[str]) -> None:
    """Run libFuzzer in this process."""
    import atheris

    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    with atheris.instrument_imports(include=["nodulemc"]):
        import targets
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    atheris.Setup([sys.argv[0], *arguments], lambda data: targets.run(name, data) and None)
    atheris.Fuzz()


def main() -> int:
    """Fuzz and report."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=HERE / "found")
    parser.add_argument("--seed", type=int, default=1)
    names = sorted(folder.name for folder in CORPUS.iterdir())
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: {' '.join(names)}")
    args = parser.parse_args()
    args.targets = args.targets or names
    args.keep.mkdir(parents=True, exist_ok=True)
    each = args.seconds * args.jobs / len(args.targets)
    with ThreadPoolExecutor(args.jobs) as pool:
        results = pool.map(lambda name: fuzz_one(name, each, args.keep, args.seed), args.targets)
        report = dict(zip(args.targets, results, strict=True))
    print(json.dumps(report, indent=2))
    return int(any(result["fault"] for result in report.values()))


if __name__ == "__main__":
    sys.exit(main())
