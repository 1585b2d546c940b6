"""The ``nodulemc`` command: finds the subcommand's module, parses its arguments, maps errors to exit codes."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from nodulemc.errors import NoduleMCError, ResourceError, out_of_memory

# name: one line for `nodulemc --help`. Each command lives in nodulemc/commands/<name>.py (dashes become
# underscores), with `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int | None`; only the chosen one
# is imported.
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
    "status": "how far a cohort is",
    "export": "a cohort's results as CSV, Parquet and platform JSON",
    "bench": "how fast an ensemble runs on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (0 done, 2 bad input or usage, 130 interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="nodulemc", description="Lung nodule malignancy from chest CT.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name != chosen:
            subparsers.add_parser(name, help=summary)
            continue
        module = import_module(f"nodulemc.commands.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    return exit_code_of(lambda: args.run(args))


def exit_code_of(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; warnings and a user's error are one line each on stderr."""
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    try:
        return _explained(work)
    except NoduleMCError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _explained(work: Callable[[], int | None]) -> int:
    """Call ``work()`` and return its exit code; a lack of memory becomes a user's error."""
    try:
        return work() or 0
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not out_of_memory(error):
            raise
        raise ResourceError("out of memory", "this machine", "give the process more memory") from error


if __name__ == "__main__":
    sys.exit(main())
