"""Seeds on the CPU through OpenVINO, which imports and runs several times faster than PyTorch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np

from nodulemc.backends.openvino_graph import features_graph
from nodulemc.backends.openvino_runtime import openvino
from nodulemc.cpu import available_cores
from nodulemc.manifest import Member
from nodulemc.weights import read_weights

Layer = tuple[np.ndarray, np.ndarray]  # weight, bias
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoSeeds:
    """Compiled seeds.

    Attributes:
        device: "cpu".
        precision: "fp32", "bf16" or "fp16"; OpenVINO computes in fp32 where the CPU lacks the shorter ones.
    """

    device = "cpu"

    def __init__(self, folder: str | Path, members: Sequence[Member], precision: str) -> None:
        """Load and compile the seeds of an ensemble folder.

        Raises:
            EnsembleError: as ``nodulemc.weights.read_weights``.
        """
        self.precision = precision
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": available_cores(),
            # Pinned threads of two processes would meet on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        with ThreadPoolExecutor(min(available_cores(), len(members))) as pool:
            self._seeds = list(pool.map(lambda member: self._load(folder, member), members))

    def _load(self, folder: str | Path, member: Member) -> tuple[openvino.InferRequest, list[Layer]]:
        """One seed's backbone, compiled, and its head."""
        tensors = read_weights(folder, member)
        model = features_graph(member.architecture, tensors, upscaled=member.upscales)
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request(), _head(tensors)

    def seed_probabilities(self, patches: np.ndarray) -> np.ndarray:
        """Each seed's malignancy probability of each patch: (N, 64, 64, 64) to float64 (N, number of seeds)."""
        results = np.empty((len(patches), len(self._seeds)))
        # One nodule at a time: more are no faster, and each result is independent of the others.
        for row, patch in zip(results, patches, strict=True):
            for column, (request, head) in enumerate(self._seeds):
                features = next(iter(request.infer([patch[None, None]]).values()))
                row[column] = _probability(features[0], head)
        return results


def _head(tensors: dict[str, np.ndarray]) -> list[Layer]:
    """Weight and bias of each linear layer after the pooling."""
    names = (f"classifier_head.{2 * k}" for k in count(1))
    layers = []
    for name in names:
        if f"{name}.weight" not in tensors:
            return layers
        layers.append((tensors[f"{name}.weight"].astype(np.float64), tensors[f"{name}.bias"].astype(np.float64)))


def _probability(features: np.ndarray, head: Sequence[Layer]) -> float:
    *hidden, (weight, bias) = head
    for inner, offset in hidden:
        features = np.maximum(inner @ features + offset, 0)
    logit = (weight @ features + bias).item()
    # Never overflows.
    return 0.5 * (1 + np.tanh(logit / 2))
