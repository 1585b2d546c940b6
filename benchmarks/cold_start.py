"""From a cold process to the JSON: wall time and peak memory by number of nodules, and the time of each phase.

    python benchmarks/cold_start.py

The CT is a phantom of 162 × 512 × 512 voxels, a compressed .mha. Whole cases run inference.py in fresh processes. They
alternate with benchmarks/reference_loop.py, which works like the reference implementation. Phases are timed one after
the other in one process, each with its floor. Run it on an idle machine.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from measure import matrix_rate, network_flops, precisions, record, run_cold, seconds
from reference_loop import write_checkpoints

from nodulemc.ensemble.manifest import PACKAGED_MODEL, read_manifest
from nodulemc.phantom.patient import Patient
from nodulemc.phantom.render import draw_nodules, render

ROOT = Path(__file__).resolve().parent.parent
SLICES = 162
REFERENCE_NODULES = (1, 10)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precisions", nargs="+", metavar="P", help="default: fp32, and bf16 where it is faster")
    parser.add_argument("--nodules", type=int, nargs="+", default=[1, 3, 10, 50], metavar="N")
    parser.add_argument("--slices", type=int, default=SLICES, metavar="N", help="of the CT (default: 162)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    args = parser.parse_args()
    args.precisions = args.precisions or precisions(args.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_ct(folder / "images" / "chest-ct" / "ct.mha", args.slices)
        flops = network_flops() * len(read_manifest(args.resources).members)
        rates = {precision: matrix_rate(precision, args.device) for precision in args.precisions}
        cases = measure_cases(folder, args, flops, rates)
        print(f"\nphases with {args.nodules[0]} nodule(s), one after the other, {args.precisions[-1]}")
        write_points(folder, args.nodules[0])
        phases = measure_phases(folder, args.resources, args.device, args.precisions[-1])
        floors = phase_floors(folder, args.resources, args.nodules[0] * flops / rates[args.precisions[-1]])
        for name, value in phases.items():
            floor = floors.get(name)
            beside = f"  floor {floor:.3f} s, ratio {value / floor:.2f}" if floor else ""
            print(f"{name:24}{value:8.3f} s{beside}")
    record(
        f"cold_start_{args.device}" + (f"_{args.slices}_slices" if args.slices != SLICES else ""),
        {"cases": cases, "phases": phases, "floors": floors, "matrix_rates": rates, "slices": args.slices},
    )


def write_ct(path: Path, slices: int) -> None:
    """Write a compressed phantom CT."""
    path.parent.mkdir(parents=True)
    scene = Patient(3, 0).scene(0)
    voxels = render(scene, draw_nodules(scene))
    voxels = np.concatenate([voxels] * -(-slices // len(voxels)))[:slices]
    sitk.WriteImage(scene.grid.image(voxels), str(path), useCompression=True)


def write_points(folder: Path, count: int) -> None:
    """Write points that are spread over the CT."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(folder / "images" / "chest-ct" / "ct.mha"))
    reader.ReadImageInformation()
    size, spacing, origin = (np.array(getattr(reader, f"Get{k}")()) for k in ("Size", "Spacing", "Origin"))
    places = np.random.default_rng(0).uniform(0.2, 0.8, (count, 3))
    points = [{"name": str(k), "point": p} for k, p in enumerate((origin + places * size * spacing).tolist())]
    version = {"major": 1, "minor": 0}
    content = {"name": "Points of interest", "type": "Multiple points", "points": points, "version": version}
    (folder / "nodule-locations.json").write_text(json.dumps(content))


def measure_cases(folder: Path, args: argparse.Namespace, flops: float, rates: dict[str, float]) -> list[dict]:
    """Measure whole cold cases, alternating with the reference loop."""
    rows = []
    output = folder / "output"
    output.mkdir()
    checkpoints = write_checkpoints(folder, args.resources, read_manifest(args.resources).members)
    print("nodules  precision  seconds  peak MB  reference s  times faster  network floor s")
    for count in args.nodules:
        write_points(folder, count)
        runs = {precision: [] for precision in args.precisions}
        reference = []
        for repeat in range(args.repeats):
            for precision in args.precisions:
                options = ["--input", folder, "--output", output, "--resources", args.resources]
                options += ["--device", args.device, "--precision", precision]
                runs[precision].append(run_cold([str(ROOT / "inference.py"), *map(str, options)]))
            if count in REFERENCE_NODULES and repeat < 2:
                loop = [ROOT / "benchmarks" / "reference_loop.py", folder, output, *checkpoints]
                reference.append(run_cold([*map(str, loop)])[0])
        for precision, done in runs.items():
            median, memory = statistics.median(t for t, _ in done), max(m for _, m in done)
            floor = count * flops / rates[precision]
            row = {"nodules": count, "precision": precision, "seconds": median, "peak_mb": memory}
            row |= {"network_floor_seconds": floor}
            beside = f"{'':27}"
            if reference:
                row |= {"reference_seconds": min(reference), "times_faster": min(reference) / median}
                beside = f"  {min(reference):11.2f}  {min(reference) / median:12.1f}"
            rows.append(row)
            print(f"{count:7}  {precision:9}  {median:7.2f}  {memory:7.0f}{beside}  {floor:15.2f}", flush=True)
    return rows


def measure_phases(folder: Path, resources: Path, device: str, precision: str) -> dict[str, float]:
    """Return the median seconds of each phase over fresh processes."""
    command = [sys.executable, ROOT / "benchmarks" / "phases.py", folder, resources, device, precision]
    run = partial(subprocess.run, list(map(str, command)), capture_output=True, check=True, text=True)
    runs = [json.loads(run().stdout) for _ in range(5)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def phase_floors(folder: Path, resources: Path, network: float) -> dict[str, float]:
    """Measure now the least work of a phase: inflating, hashing, the FLOPs."""
    from zlib_ng import zlib_ng

    content = (folder / "images" / "chest-ct" / "ct.mha").read_bytes()
    stream = content[content.index(b"LOCAL\n") + 6 :]
    weights = [(resources / member.file).read_bytes() for member in read_manifest(resources).members]
    return {
        "CT read": seconds(lambda: zlib_ng.decompress(stream)),
        "weights": seconds(lambda: [hashlib.sha256(content).digest() for content in weights]),
        "network": network,
    }


if __name__ == "__main__":
    main()
