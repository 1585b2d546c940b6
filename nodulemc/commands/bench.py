"""How fast an ensemble runs on this machine: loading it, and seconds per nodule once it is loaded.

More benchmarks, each beside its floor, are in benchmarks/ (docs/speed.md).
"""

import argparse
import time

from nodulemc.option_types import whole_number
from nodulemc.options import add_ensemble_options, load_ensemble
from nodulemc.util.progress import QUIET_S, progress
from nodulemc.util.text import counted

EXAMPLE = "nodulemc bench --device cpu --precision fp32"
_REPEATS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--nodules", type=whole_number(1), default=8, metavar="N", help="scored together (default: 8)")
    add_ensemble_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    import numpy as np

    from nodulemc.ensemble.synthetic_patches import probe_patches

    start = time.perf_counter()
    ensemble = load_ensemble(args)
    loaded = time.perf_counter() - start
    probes = probe_patches()
    patches = probes[np.arange(args.nodules) % len(probes)]
    ensemble.member_probabilities(patches[:1])  # the first pass allocates memory
    times = []
    for _ in progress(range(_REPEATS), _REPEATS, "rounds", quiet_s=QUIET_S):
        start = time.perf_counter()
        ensemble.member_probabilities(patches)
        times.append(time.perf_counter() - start)
    each = min(times) / args.nodules
    print(f"device     {ensemble.device}, {ensemble.precision}, {counted(len(ensemble.manifest.members), 'member')}")
    print(f"loading    {loaded:.2f} s")
    print(f"nodule     {each:.3f} s ({1 / each:.1f} per second), the best of {_REPEATS} rounds of {args.nodules}")
