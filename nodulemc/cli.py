"""The ``nodulemc`` command: finds the subcommand's module and parses its arguments."""

import sys
from collections.abc import Sequence
from importlib import import_module

from nodulemc import __version__
from nodulemc.program import exit_code_of, use_utf8
from nodulemc.usage import Parser

# Each command's name and its line in `nodulemc --help`. A command is in nodulemc/commands/<name>.py (dashes become
# underscores), with `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int | None`. Only the chosen command is
# imported.
COMMANDS = {
    "predict": "malignancy probabilities for nodules in one CT",
    "import-reference": "turn public baseline or MClab checkpoints into an ensemble folder",
    "prepare": "CTs, table and masks to a block store for training",
    "split": "training and validation samples, or folds, by patient",
    "train": "train seeds from a block store and export them as an ensemble",
    "phantom": "procedural chest CTs with nodules of known malignancy probability",
    "evaluate": "metrics with confidence intervals and a report",
    "compare": "test whether two sets of predictions differ in AUC",
    "calibrate": "fit a calibration map and store it in an ensemble",
    "cohort": "score many scans, resumable, on one machine or a cluster",
    "cohort-status": "how far a cohort is",
    "cohort-export": "a cohort's results as CSV, Parquet and Grand-Challenge JSON",
    "serve": "a web server that keeps the ensemble loaded between cases",
    "bench": "how fast an ensemble runs on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (0 done, 2 bad input or usage, 130 interrupted)."""
    if argv is None:
        use_utf8()
    return exit_code_of(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def _run(argv: Sequence[str]) -> int | None:
    parser = Parser("nodulemc", "Lung nodule malignancy from chest CT.")
    parser.add_argument("--version", action="version", version=f"nodulemc {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    chosen = next((place for place, word in enumerate(argv, start=1) if not word.startswith("-")), len(argv))
    args = parser.parse_args(argv[:chosen])
    module = import_module(f"nodulemc.commands.{args.command.replace('-', '_')}")
    command = Parser(f"nodulemc {args.command}", module.__doc__, epilog=f"example:\n  {module.EXAMPLE}")
    module.add_arguments(command)
    code: int | None = module.run(command.parse_args(argv[chosen:], args))
    return code


if __name__ == "__main__":
    sys.exit(main())
