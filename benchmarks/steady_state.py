"""Nodules per second of a loaded ensemble, by batch size and precision, beside the machine's matrix-product rate.

    python benchmarks/steady_state.py [--device cuda]

On a CPU it measures OpenVINO and, for comparison, PyTorch. The floor of a nodule is the published network's FLOPs
divided by the rate of a large matrix product, measured just before. Folding the upscaling into the first convolution
saves part of those FLOPs, so a ratio below 1 is possible. On a GPU, peak memory is the device's. Run it on an idle
machine.
"""

import argparse
from pathlib import Path

import numpy as np
from measure import matrix_rate, network_flops, peak_memory_mb, precisions, record, reset_peak_memory, seconds

from nodulemc.ensemble.backends.torch_backend import TorchMembers, load_network
from nodulemc.ensemble.manifest import PACKAGED_MODEL, read_manifest
from nodulemc.ensemble.synthetic_patches import probe_patches


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precisions", nargs="+", metavar="P", help="default: fp32, and bf16 where it is faster")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="PyTorch's batch sizes")
    args = parser.parse_args()
    args.precisions = args.precisions or precisions(args.device)
    members = read_manifest(args.resources).members
    flops = sum(network_flops(member.architecture.backbone) for member in members)
    rows = []
    print("backend   precision  batch  nodules/s  s/nodule   floor  ratio  peak MB")
    for precision in args.precisions:
        floor = flops / matrix_rate(precision, args.device)
        settings = [("PyTorch", batch) for batch in args.batches]
        if args.device == "cpu":
            settings.insert(0, ("OpenVINO", 1))
        for backend, batch in settings:
            rows.append(measure(backend, args, precision, batch, floor))
    record(f"steady_state_{args.device}", {"rows": rows, "seeds": len(members)})


def measure(backend: str, args: argparse.Namespace, precision: str, batch: int, floor: float) -> dict:
    """Return one line of the table."""
    members = read_manifest(args.resources).members
    if backend == "OpenVINO":
        from nodulemc.ensemble.backends.openvino_backend import OpenVinoMembers

        seeds = OpenVinoMembers(args.resources, members, precision)
    else:
        seeds = TorchMembers([load_network(args.resources, member) for member in members], args.device, precision)
        seeds.batch_size = batch
    probes = probe_patches()
    patches = probes[np.arange(max(batch, 4)) % len(probes)]
    reset_peak_memory(args.device)
    seeds.member_probabilities(patches)
    each = seconds(lambda: seeds.member_probabilities(patches), 5, args.device) / len(patches)
    row = {"backend": backend, "precision": precision, "batch": batch, "nodules_per_second": 1 / each}
    row |= {"seconds_per_nodule": each, "floor_seconds": floor, "ratio": each / floor}
    row["peak_mb"] = peak_memory_mb(args.device)
    memory = "      -" if row["peak_mb"] is None else f"{row['peak_mb']:7.0f}"
    print(
        f"{backend:9} {precision:9} {batch:6} {1 / each:10.2f} {each:9.4f} {floor:7.4f} {each / floor:6.2f}  {memory}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
