"""One case phase by phase, without overlap, in its own process: a part of benchmarks/cold_start.py.

python benchmarks/phases.py INPUT RESOURCES DEVICE PRECISION [floor]

With "floor" it ends after the work that every case waits for: the imports, the GPU's start, and reading the CT.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path


def main() -> None:
    """Print each phase's seconds as JSON."""
    folder, resources, device, precision, *floor = sys.argv[1:]
    marks = [("start", time.perf_counter())]

    def done(name: str) -> None:
        marks.append((name, time.perf_counter()))

    from nodulemc.ct.volume import read_volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.grand_challenge.case import read_case
    from nodulemc.output.multiple_points import multiple_points
    from nodulemc.prediction import predict_patches, prepare_inputs
    from nodulemc.util.json_files import write_json_atomically

    if device == "cpu":
        pass
    else:
        import torch

        from nodulemc.ensemble.backends.torch_backend import start_gpu
    done("imports")
    if device == "cuda":
        start_gpu(torch.float16)
        done("CUDA's start")
    case = read_case(Path(folder))
    volume = read_volume(case.ct)
    done("CT read")
    if not floor:
        seen = prepare_inputs(volume, case.nodules)
        done("patches")
        ensemble = Ensemble.load(resources, device=device, precision=precision)
        done("weights")
        predictions = predict_patches(case.nodules, *seen, ensemble)
        done("network")
        write_json_atomically(Path(folder) / "out.json", multiple_points(predictions))
        done("write")
    print(json.dumps({name: mark - before for (_, before), (name, mark) in pairwise(marks)}))


if __name__ == "__main__":
    main()
