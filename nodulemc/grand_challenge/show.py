"""Print Grand-Challenge's output JSON as a short table: ``python -m nodulemc.grand_challenge.show FILE``."""

import sys
from pathlib import Path
from typing import Any

from nodulemc.ensemble.manifest import named, origin_of, read_manifest
from nodulemc.errors import printable
from nodulemc.program import exit_code_of
from nodulemc.usage import Parser
from nodulemc.util.json_files import read_json


def main() -> None:
    """Print a line for each nodule with its probability, then the ensemble and its training data.

    `nodulemc predict` names the ensemble in its output. Grand-Challenge's format has no place for it, so for such a
    file the ensemble is named that would be used here and now.
    """
    parser = Parser("python -m nodulemc.grand_challenge.show", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="Grand-Challenge's output JSON")
    content = read_json(parser.parse_args(sys.argv[1:]).file)
    points = content["points"]
    names = [printable(point.get("name", str(k))) for k, point in enumerate(points, start=1)]
    width = max(map(len, ["nodule", *names]))
    print(f"{'nodule':<{width}}  probability of malignancy")
    for name, point in zip(names, points, strict=True):
        print(f"{name:<{width}}  {point['probability']:.4f}")
    print(_ensemble(content))


def _ensemble(content: dict[str, Any]) -> str:
    if "ensemble" in content:
        return f"ensemble: {named(content['ensemble'])}\n{printable(origin_of(content['trained_on']))}"
    manifest = read_manifest()
    return f"ensemble: not named in this file; the one in use here is {named(manifest.identity)}\n{manifest.origin}"


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
