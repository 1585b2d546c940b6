"""Print the platform's output JSON as a short table: ``python -m nodulemc.show FILE``."""

import sys
from pathlib import Path

from nodulemc.cli import exit_code_of
from nodulemc.errors import CaseError, printable
from nodulemc.json_files import read_json
from nodulemc.manifest import find_resources, read_manifest
from nodulemc.usage import Parser


def main() -> None:
    """Print a nodule and its probability a line, then what the default ensemble was trained on."""
    parser = Parser("python -m nodulemc.show", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the platform's output JSON")
    points = read_json(parser.parse_args(sys.argv[1:]).file, CaseError)["points"]
    names = [printable(point.get("name", str(k))) for k, point in enumerate(points, start=1)]
    width = max(map(len, ["nodule", *names]))
    print(f"{'nodule':<{width}}  probability of malignancy")
    for name, point in zip(names, points, strict=True):
        print(f"{name:<{width}}  {point['probability']:.4f}")
    print(read_manifest(find_resources()).origin)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
