"""The distance of the faster paths from plain PyTorch in fp32, on phantom nodules that the ensemble has not seen.

    python benchmarks/exactness.py [--store STORE]

The yardstick runs each member as it was trained: three channels, upscaled patches, BatchNorm unfolded, eager fp32. For
each path the script prints the largest difference in a member's and in the voted probability, the pairs of nodules that
swap places, and both AUCs. "Rounded to bf16" or fp16 is the effect of the type, imitated by rounding in fp32, so on any
CPU. Without --store it first draws the nodules of seed 25.
"""

import argparse
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from measure import precisions, record, swapped_gaps
from sklearn.metrics import roc_auc_score

from nodulemc.data.block_store import BlockStore
from nodulemc.ensemble.backends.torch_backend import DTYPES, TorchMembers, load_network
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import PACKAGED_MODEL, Member, read_manifest
from nodulemc.ensemble.weights import read_weights
from nodulemc.evaluation.stored_nodules import StoredNodules
from nodulemc.models.checkpoints import fill
from nodulemc.models.multitask import MultiTaskI3d, create_model
from nodulemc.models.rounding import round_network
from nodulemc.phantom.block_store import write_block_store
from nodulemc.util.progress import progress

SEED, PATIENTS = 25, 100


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=Path, default=PACKAGED_MODEL, metavar="DIR", help="ensemble folder")
    parser.add_argument("--store", type=Path, help="block store to take the nodules from")
    parser.add_argument("--nodules", type=int, default=200, metavar="N", help="default: 200")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if args.store is None:
            args.store = Path(temporary)
            write_block_store(args.store, SEED, PATIENTS, 2)
        rows = BlockStore(args.store).table[: args.nodules]
        nodules = StoredNodules(args.store)
        patches = np.stack([nodules.patch(row["AnnotationID"]) for row in rows])
    labels = [row["label"] for row in rows]
    vote = Ensemble.load(args.resources, device="cpu", precision="fp32").vote
    expected = plain_probabilities(args.resources, patches)
    figures = {}
    print("path           member's largest  voted largest  pairs swapped  largest gap swapped     AUC  (plain)")
    for name, seeds in paths(args.resources):
        found = seeds.member_probabilities(patches)
        gaps = swapped_gaps(vote(expected), vote(found))
        row = {
            "seed": float(np.abs(found - expected).max()),
            "voted": float(np.abs(vote(found) - vote(expected)).max()),
            "swapped_pairs": len(gaps),
            "largest_gap_swapped": max(gaps, default=0.0),
            "auc": roc_auc_score(labels, vote(found)),
            "auc_plain": roc_auc_score(labels, vote(expected)),
        }
        figures[name] = row
        print(
            f"{name:16} {row['seed']:14.2e} {row['voted']:14.2e} {len(gaps):14} {row['largest_gap_swapped']:20.2e} "
            f"{row['auc']:7.4f}  ({row['auc_plain']:.4f})",
            flush=True,
        )
    record("exactness", {"paths": figures, "nodules": len(rows), "pairs": len(rows) * (len(rows) - 1) // 2})


def paths(resources: Path) -> Iterator[tuple[str, Ensemble | TorchMembers]]:
    """Yield the faster paths of this machine, by name."""
    members = read_manifest(resources).members
    for precision in precisions("cpu"):
        yield f"CPU {precision}", Ensemble.load(resources, device="cpu", precision=precision)
    networks = [load_network(resources, member) for member in members]
    yield "PyTorch fp32", TorchMembers(networks, "cpu", "fp32")
    for precision in ("bf16", "fp16"):
        coarse = [round_network(deepcopy(network), DTYPES[precision]) for network in networks]
        yield f"rounded to {precision}", TorchMembers(coarse, "cpu", "fp32")
    if torch.cuda.is_available():
        for precision in ("fp16", "bf16"):
            networks = [load_network(resources, member) for member in members]
            yield f"GPU {precision}", TorchMembers(networks, "cuda", precision)


@torch.no_grad()
def plain_probabilities(resources: Path, patches: np.ndarray) -> np.ndarray:
    """Return each member's probability of each nodule, (N, members), without any of the shortcuts."""
    networks = [plain_network(resources, member) for member in read_manifest(resources).members]
    results = np.empty((len(patches), len(networks)))
    for k, patch in enumerate(progress(patches, len(patches), "plain")):
        upscaled = torch.from_numpy(patch.repeat(2, axis=1).repeat(2, axis=2)).expand(1, 3, -1, -1, -1)
        results[k] = [torch.sigmoid(network(upscaled).double()).item() for network in networks]
    return results


def plain_network(resources: Path, member: Member) -> MultiTaskI3d:
    """Return a member as it was trained."""
    network = create_model(member.architecture, with_decoder=False)
    tensors = read_weights(resources, member)
    fill(network, {name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()})
    return network.eval()


if __name__ == "__main__":
    main()
