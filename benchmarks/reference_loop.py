"""One case in the manner of the public reference implementation: the yardstick of benchmarks/cold_start.py.

It is eager fp32 PyTorch, one nodule at a time. For each nodule every member is built anew, with its decoder, and its
checkpoint of 196 MB is read again, as in MClab's processor_ensemble.py. The decoder is not run. The script was written
for this comparison and gives the same probabilities as this package.

    python benchmarks/reference_loop.py INPUT OUTPUT CHECKPOINT...
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from nodulemc.ct.volume import Volume
from nodulemc.ensemble.manifest import Member
from nodulemc.ensemble.weights import read_weights
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.decoder import published_widths
from nodulemc.models.multitask import create_model
from nodulemc.output.multiple_points import OUTPUT_NAME
from nodulemc.patch import extract_patch

ARCHITECTURE = Architecture("inception_i3d", (), published_widths(BACKBONES["inception_i3d"].channels))


def main() -> None:
    """Score the case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="INPUT", help="the case's folder, as Grand-Challenge hands it in")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=f"an existing folder for {OUTPUT_NAME}")
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="one .pth for each member")
    args = parser.parse_args()
    path = next((args.input / "images" / "chest-ct").iterdir())
    volume = Volume(sitk.ReadImage(str(path)), path)
    content = json.loads((args.input / "nodule-locations.json").read_text())
    for point in content["points"]:
        patch = torch.from_numpy(extract_patch(volume, point["point"]))[None, None]
        votes = [probability(patch, checkpoint) for checkpoint in args.checkpoints]
        point["probability"] = sum(votes) / len(votes)
    (args.output / OUTPUT_NAME).write_text(json.dumps(content))


@torch.no_grad()
def probability(patch: torch.Tensor, checkpoint: Path) -> float:
    """Return one member's probability of one nodule."""
    network = create_model(ARCHITECTURE, with_decoder=True)
    network.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    upscaled = torch.nn.functional.interpolate(patch, size=(64, 128, 128)).repeat(1, 3, 1, 1, 1)
    return torch.sigmoid(network.eval()(upscaled)).item()


def write_checkpoints(folder: Path, resources: Path, members: Iterable[Member]) -> list[Path]:
    """Write an ensemble's members in the form of the reference's training: fp32 state dicts with a decoder.

    The reference has no attribute head, so an ensemble's is left out; the probabilities do not depend on it.
    """
    paths = []
    for member in members:
        tensors = create_model(ARCHITECTURE, with_decoder=True).state_dict()
        stored = read_weights(resources, member)
        tensors |= {name: torch.from_numpy(stored[name].astype(np.float32)) for name in tensors.keys() & stored.keys()}
        paths.append(folder / f"{Path(member.file).stem}.pth")
        torch.save(tensors, paths[-1])
    return paths


if __name__ == "__main__":
    main()
