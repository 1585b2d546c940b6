"""``python -m nodulemc``: the same as the command ``nodulemc``."""

import sys

from nodulemc.cli import main

if __name__ == "__main__":
    sys.exit(main())
