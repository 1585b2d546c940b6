"""One case phase by phase, without overlap, in its own process: a part of benchmarks/cold_start.py.

    python benchmarks/phases.py INPUT RESOURCES DEVICE PRECISION [--floor]

INPUT is a case as Grand-Challenge hands it in; the result is written there, as out.json.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path


def main() -> None:
    """Print each phase's seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="INPUT", help="the case's folder")
    parser.add_argument("resources", type=Path, metavar="RESOURCES", help="ensemble folder")
    parser.add_argument("device", metavar="DEVICE", help="cpu or cuda")
    parser.add_argument("precision", metavar="PRECISION", help="auto, fp32, bf16 or fp16")
    parser.add_argument(
        "--floor", action="store_true", help="end after what every case waits for: imports, the GPU's start, the CT"
    )
    args = parser.parse_args()
    marks = [("start", time.perf_counter())]

    def done(name: str) -> None:
        marks.append((name, time.perf_counter()))

    from nodulemc.ct.volume import read_volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.grand_challenge.case import read_case
    from nodulemc.output.multiple_points import multiple_points
    from nodulemc.prediction import predict_patches, prepare_inputs
    from nodulemc.util.json_files import write_json_atomically

    if args.device != "cpu":
        import torch

        from nodulemc.ensemble.backends.torch_backend import start_gpu
    done("imports")
    if args.device == "cuda":
        start_gpu(torch.float16)
        done("CUDA's start")
    case = read_case(args.input)
    volume = read_volume(case.ct)
    done("CT read")
    if not args.floor:
        seen = prepare_inputs(volume, case.nodules)
        done("patches")
        ensemble = Ensemble.load(args.resources, device=args.device, precision=args.precision)
        done("weights")
        predictions = predict_patches(case.nodules, *seen, ensemble)
        done("network")
        write_json_atomically(args.input / "out.json", multiple_points(predictions))
        done("write")
    print(json.dumps({name: mark - before for (_, before), (name, mark) in pairwise(marks)}))


if __name__ == "__main__":
    main()
