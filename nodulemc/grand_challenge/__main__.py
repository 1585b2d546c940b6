"""``python -m nodulemc.grand_challenge``: the entry point of an image that is called by ``invoke``."""

import os
import signal
import sys

from nodulemc.cli import main as run_command


def main() -> int:
    """Run ``nodulemc serve`` on all of the container's addresses."""
    # A container's first process ignores SIGTERM unless it handles it. There is nothing to clean up until the server
    # runs, and an exception might surface in the midst of a library's import.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    return run_command(["serve", "--host", "0.0.0.0", *sys.argv[1:]])  # noqa: S104


if __name__ == "__main__":
    sys.exit(main())
