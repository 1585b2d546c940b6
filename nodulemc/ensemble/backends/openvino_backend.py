"""Members on the CPU through OpenVINO, which imports and runs several times faster than PyTorch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nodulemc.arrays import Array
from nodulemc.ensemble.backends.openvino_graph import network_graph
from nodulemc.ensemble.backends.openvino_runtime import openvino
from nodulemc.ensemble.manifest import Member
from nodulemc.ensemble.weights import read_weights
from nodulemc.hardware import available_cores
from nodulemc.models.tensor_shapes import ATTRIBUTE_HEAD

Layer = tuple[Array, Array]  # weight, bias
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoMembers:
    """The compiled members.

    Attributes:
        device: "cpu".
        precision: "fp32", "bf16" or "fp16". OpenVINO computes in fp32 if the CPU lacks the shorter type.
    """

    device = "cpu"

    def __init__(self, folder: str | Path, members: Sequence[Member], precision: str, *, masks: bool = False) -> None:
        """Load and compile the members of an ensemble folder. For masks, the members that have a decoder get it.

        Raises:
            EnsembleError: as ``nodulemc.ensemble.weights.read_weights``.
        """
        self.precision = precision
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": available_cores(),
            # Pinned threads of two processes would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        with ThreadPoolExecutor(min(available_cores(), len(members))) as pool:
            self._members = list(
                pool.map(lambda member: self._load(folder, member, masks and member.segments), members)
            )

    def _load(self, folder: str | Path, member: Member, masks: bool) -> "_Member":
        tensors = read_weights(folder, member, masks=masks)
        graph = network_graph(member.architecture, tensors, upscaled=member.upscales, masks=masks)
        request = self._core.compile_model(graph, "CPU", self._settings).create_infer_request()
        return _Member(request, masks, _head(tensors), _attribute_heads(member, tensors))

    def member_probabilities(self, patches: Array) -> Array:
        """Return each member's malignancy probabilities: from (N, 64, 64, 64) to float64 (N, number of members)."""
        return self.member_findings(patches, ())[:, :, 0]

    def member_findings(self, patches: Array, attributes: tuple[str, ...]) -> Array:
        """Return each member's malignancy probability and these attributes of each patch.

        Args:
            patches: (N, 64, 64, 64).
            attributes: The names of the attributes.

        Returns:
            float64 (N, number of members, 1 + number of attributes), 0…1. Attributes that a member does not predict are
                NaN.
        """
        results = np.empty((len(patches), len(self._members), 1 + len(attributes)))
        for rows, patch in zip(results, patches, strict=True):
            rows[:], _ = self._run(patch, attributes)
        return results

    def member_findings_and_masks(self, patches: Array, attributes: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the results of ``member_findings`` and ``mask_probabilities``, from one pass."""
        findings = np.empty((len(patches), len(self._members), 1 + len(attributes)))
        logits = np.empty((len(patches), sum(member.segments for member in self._members), *patches.shape[1:]))
        for rows, masks, patch in zip(findings, logits, patches, strict=True):
            rows[:], masks[:] = self._run(patch, attributes)
        return findings, _sigmoid(logits)

    def mask_probabilities(self, patches: Array) -> Array:
        """Return each voxel's probability to belong to the nodule, from each member that has a decoder.

        Args:
            patches: (N, 64, 64, 64).

        Returns:
            float64 (N, number of these members, 64, 64, 64).
        """
        return self.member_findings_and_masks(patches, ())[1]

    def _run(self, patch: Array, attributes: tuple[str, ...]) -> tuple[list[list[float]], list[Array]]:
        """Return each member's probability and attributes, and each decoder's mask logits (64, 64, 64).

        One nodule runs at a time. Running more at once is no faster, and each result is independent of the others.
        """
        outputs = [member.request.infer([patch[None, None]]) for member in self._members]
        both = [*zip(self._members, outputs, strict=True)]
        findings = [member.findings(found[0][0], attributes) for member, found in both]
        return findings, [found[1][0, 0] for member, found in both if member.segments]


class _Member(NamedTuple):
    """One member: its compiled backbone, with its decoder if ``segments``, and its heads' layers."""

    request: openvino.InferRequest
    segments: bool
    malignancy: list[Layer]
    attributes: dict[str, list[Layer]]

    def findings(self, features: Array, attributes: tuple[str, ...]) -> list[float]:
        """Return the malignancy probability and attributes, 0…1, from pooled features. Unknown attributes are NaN."""
        heads = [self.malignancy, *map(self.attributes.get, attributes)]
        return [np.nan if head is None else _probability(features, head) for head in heads]


def _head(tensors: dict[str, Array]) -> list[Layer]:
    """Return weight and bias of each linear layer after the pooling."""
    names = takewhile(lambda name: f"{name}.weight" in tensors, (f"classifier_head.{2 * k}" for k in count(1)))
    return [
        (tensors[f"{name}.weight"].astype(np.float64), tensors[f"{name}.bias"].astype(np.float64)) for name in names
    ]


def _attribute_heads(member: Member, tensors: dict[str, Array]) -> dict[str, list[Layer]]:
    """Return the head of each attribute that the member predicts: one layer."""
    names = member.architecture.attributes
    if not names:
        return {}
    weights, biases = (tensors[f"{ATTRIBUTE_HEAD}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    return {name: [(weights[k], biases[k])] for k, name in enumerate(names)}


def _probability(features: Array, head: Sequence[Layer]) -> float:
    *hidden, (weight, bias) = head
    features = features[: head[0][0].shape[-1]]
    for inner, offset in hidden:
        features = np.maximum(inner @ features + offset, 0)
    return float(_sigmoid(weight @ features + bias).item())


def _sigmoid(logits: Array) -> Array:
    # This form never overflows.
    probabilities: Array = 0.5 * (1 + np.tanh(logits / 2))
    return probabilities
