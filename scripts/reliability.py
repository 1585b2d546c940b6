"""Try bad inputs, faults and fuzzing, and write the results into the tables of docs/reliability.md.

python scripts/reliability.py [--seconds 240] [--jobs 2] [--signals 20]
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "test"), str(REPOSITORY)]

import bad_inputs  # noqa: E402
import injection  # noqa: E402
from injection import Ending, made  # noqa: E402

DOCUMENT = REPOSITORY / "docs" / "reliability.md"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def judged_inputs() -> list[dict]:
    """Return outcome, message, seconds and memory of every bad input, in the order of its table."""
    command = [sys.executable, bad_inputs.__file__, *(row.name for row in bad_inputs.ROWS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=REPOSITORY)
    return [json.loads(line) for line in done.stdout.splitlines()]


def input_tables(results: list[dict]) -> str:
    """Return one table per group of bad inputs, with outcomes and messages."""
    parts, remaining = [], iter(results)
    for group, rows in bad_inputs.GROUPS.items():
        cells = []
        for row, result in zip(rows, remaining, strict=False):
            as_stated = result["outcome"] == row.outcome and row.message in result["message"]
            said = f"`… {row.message} …`" if row.message else ""
            cells.append((row.name, result["outcome"] if as_stated else f"**{result['outcome']}**", said))
        parts.append(f"### {group}\n\n" + table(("input", "outcome", "says"), cells))
    return "\n\n".join(parts)


def injected(signals: int) -> dict[str, list[Ending]]:
    """Inject every fault into the real program."""
    endings: dict[str, list[Ending]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        endings["none"] = [injection.undisturbed(made(folder / "none"))]
        seconds = 1.05 * endings["none"][0].seconds
        for number in (signal.SIGKILL, signal.SIGTERM):
            moments = injection.at_random_moments(folder / number.name, number, signals, seconds, seed=number)
            endings[f"{number.name} at a random moment"] = moments
        for step in ("fsync", "link"):
            endings[f"SIGKILL while writing, at {step}"] = [injection.killed_while_writing(made(folder / step), step)]
        endings["output folder disappears"] = [injection.vanishing_output(made(folder / "vanishing"))]
        if injection.can_mount():
            endings["disk full"] = [injection.full_disk(made(folder / "full"))]
            endings["output read-only"] = [injection.read_only(made(folder / "read_only"))]
        memory = range(200, 2000, 200)
        endings["address space of 0.2 to 1.8 GiB"] = [
            injection.with_memory(made(folder / f"memory_{mib}"), mib) for mib in memory
        ]
    return endings


def fault_table(endings: dict[str, list[Ending]]) -> str:
    """Return a table of how often each fault was injected, and its results."""
    rows = []
    for name, runs in endings.items():
        states = Counter(run.state for run in runs)
        codes = ", ".join(f"{code}: {count}×" for code, count in sorted(Counter(_code(run) for run in runs).items()))
        rows.append((name, len(runs), states["complete"], states["none"], states["broken"], codes))
    return table(("fault", "runs", "complete output", "no output", "partial output", "exit codes"), rows)


def _code(run: Ending) -> int:
    """Return the exit code in the form of a shell or container engine."""
    return run.code if run.code >= 0 else 128 - run.code


def fuzzed(seconds: float, jobs: int) -> dict[str, dict]:
    """Return the number of tried inputs of each target, and the fault found, None if there was none."""
    command = [sys.executable, str(REPOSITORY / "test" / "fuzz" / "fuzz.py"), f"--seconds={seconds}", f"--jobs={jobs}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout)


def fuzz_table(report: dict[str, dict]) -> str:
    """Return a table of the tried inputs per parser."""
    rows = [(name.replace("_", " "), f"{r['tried']:,}", int(r["fault"] is not None)) for name, r in report.items()]
    total = sum(r["tried"] for r in report.values())
    return table(("parser", "inputs tried", "faults found"), [*rows, ("all", f"{total:,}", sum(r[2] for r in rows))])


def summary(results: list[dict], endings: dict[str, list[Ending]], report: dict[str, dict]) -> str:
    """Return all figures in one table."""
    hostile = [r for r, row in zip(results, bad_inputs.ROWS, strict=True) if row.hostile]
    runs = [run for name, group in endings.items() if name != "none" for run in group]
    outcomes = Counter(result["outcome"] for result in results)
    return table(
        ("check", "figure"),
        [
            ("bad, odd and hostile inputs", len(results)),
            ("— refused, with no output", outcomes["refused"]),
            ("— scored with a warning", outcomes["warned"]),
            ("— scored as they are, rightly", outcomes["read"]),
            ("longest time for one of the hostile ones", f"{max(r['seconds'] for r in hostile):.1f} s"),
            ("largest memory for one of them, the program's own included", f"{max(r['mib'] for r in hostile):.0f} MiB"),
            ("faults done to a run", len(runs)),
            ("partial or foreign outputs left by them", sum(run.state == "broken" for run in runs)),
            ("exit code 0 without a complete output", sum(run.code == 0 and run.state != "complete" for run in runs)),
            ("inputs fuzzed", f"{sum(r['tried'] for r in report.values()):,}"),
            ("faults found by that", sum(r["fault"] is not None for r in report.values())),
        ],
    )


def replaced(document: str, name: str, text: str) -> str:
    """Return the document with a new text between a section's markers."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    assert pattern.search(document), begin  # noqa: S101
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", document)


def main() -> int:
    """Run everything and write the document. Return exit code 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240, help="of fuzzing, over all parsers (default: 240)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="fuzzers side by side (default: cores)")
    parser.add_argument("--signals", type=int, default=20, help="runs to kill, and to end (default: 20 each)")
    args = parser.parse_args()
    results = judged_inputs()
    endings = injected(args.signals)
    report = fuzzed(args.seconds, args.jobs)
    document = DOCUMENT.read_text()
    for name, text in (
        ("summary", summary(results, endings, report)),
        ("inputs", input_tables(results)),
        ("faults", fault_table(endings)),
        ("fuzzing", fuzz_table(report)),
    ):
        document = replaced(document, name, text)
    DOCUMENT.write_text(document)
    wrong = "**" in input_tables(results)
    broken = any(
        run.state == "broken" or (run.code == 0) > (run.state == "complete") for r in endings.values() for run in r
    )
    return int(wrong or broken or any(r["fault"] for r in report.values()))


if __name__ == "__main__":
    sys.exit(main())
