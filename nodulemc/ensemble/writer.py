"""Writing an ensemble folder: safetensors files, the list of training cases, and the manifest with precisions."""

import hashlib
import math
import subprocess
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from nodulemc.arrays import Array
from nodulemc.ensemble.backends.torch_backend import DTYPES, TorchMembers, load_network
from nodulemc.ensemble.manifest import FILE_NAME, EnsembleManifest, Member, write_manifest
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.ensemble.trained_cases import TrainedCase, write_trained_cases
from nodulemc.ensemble.weights import parse_weights
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.rounding import round_network, rounded
from nodulemc.util.files import prepare_output, write_atomically
from nodulemc.util.progress import progress


@dataclass(frozen=True)
class MemberWeights:
    """One member as it comes from a training run or a checkpoint.

    Attributes:
        name: The file name without the suffix, and the member's name in results.
        architecture: The network that ``state_dict`` fills.
        state_dict: Tensors by the names of parameters and buffers; the decoder's only if the architecture has one.
        weight: The relative weight in soft voting, > 0.
        seed: the training run's seed, None where unknown.
        upscales: As in ``nodulemc.ensemble.manifest.Member``.
        fold: As in ``nodulemc.ensemble.manifest.Member``.
        cases: The scans that it was trained on. None if they are not known.
        source: The tensors' origin, for messages. None stands for the file that is to be written.
    """

    name: str
    architecture: Architecture
    state_dict: Mapping[str, torch.Tensor]
    weight: float = 1.0
    seed: int | None = None
    upscales: bool = True
    fold: int | None = None
    cases: Collection[TrainedCase] | None = None
    source: str | Path | None = None

    @property
    def file(self) -> str:
        """The file's name in the ensemble's folder."""
        return f"{self.name}.safetensors"


def write_ensemble(
    folder: str | Path,
    members: Sequence[MemberWeights],
    *,
    trained_on: str | None,
    licence: str | None,
    dtype: torch.dtype = torch.float32,
    probes: Array | None = None,
) -> EnsembleManifest:
    """Write members as an ensemble folder; ``ensemble.json`` is written last and makes it one.

    Args:
        folder: The folder, which is made if necessary. An existing ensemble is replaced once the tensors are checked.
        members: The members, in voting order.
        trained_on: A description of the training data. None for untrained weights.
        licence: The weights' licence.
        dtype: The float type of the stored tensors (torch.float32 or torch.float16).
        probes: The patches (N, 64, 64, 64), values 0…1, on which bf16 and fp16 are compared with fp32. None stands for
            ``probe_patches()``.

    Raises:
        EnsembleError: there are no members, two share a name, the tensors do not fill their architecture or are not
            finite in ``dtype``, or a network overflows on the probes.
        FileError: the folder cannot be written.
    """
    folder = Path(folder)
    names = [member.name for member in members]
    if not names or len(set(names)) != len(names):
        raise EnsembleError(
            f"the members are named {names}", folder, "give at least one member, each with its own name"
        )
    contents = [_content(folder, member, dtype) for member in members]
    # The manifest first: an interrupted replacement would leave the old one beside new files.
    prepare_output(folder / FILE_NAME)
    written = tuple(_write_member(folder, member, content) for member, content in zip(members, contents, strict=True))
    cases = write_trained_cases(folder, {member.name: member.cases for member in members})
    manifest = EnsembleManifest(written, trained_on, licence, git_revision(), trained_cases=cases)
    deviations = _deviations(folder, manifest, probe_patches() if probes is None else probes)
    if not math.isfinite(deviations["bf16"]):
        sources = ", ".join(str(member.source or folder / member.file) for member in members)
        raise EnsembleError("a network overflows on the probes", sources, "use other weights")
    # bf16 holds what fp32 holds; fp16 ends at 65,504, and a network that needs more is not to run in it.
    measured = {name: deviation for name, deviation in deviations.items() if math.isfinite(deviation)}
    manifest = replace(manifest, max_deviation=measured)
    write_manifest(folder, manifest)
    return manifest


def git_revision() -> str | None:
    """Return the commit of this code's checkout, with ``-dirty`` if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git program, or a repository it refuses to read
        return None


def _content(folder: Path, member: MemberWeights, dtype: torch.dtype) -> bytes:
    """Return the content of a member's file, checked as on reading."""
    tensors = {
        # A copy: tensors that share memory cannot be stored.
        name: value.detach()
        .to("cpu", dtype if value.is_floating_point() else value.dtype)
        .clone(memory_format=torch.contiguous_format)
        for name, value in member.state_dict.items()
    }
    content = safetensors.torch.save(tensors)
    parse_weights(content, member.architecture, member.source or folder / member.file)
    return content


def _write_member(folder: Path, member: MemberWeights, content: bytes) -> Member:
    write_atomically(folder / member.file, content)
    digest = hashlib.sha256(content).hexdigest()
    return Member(member.file, digest, member.architecture, member.weight, member.seed, member.upscales, member.fold)


def _deviations(folder: Path, manifest: EnsembleManifest, probes: Array) -> dict[str, float]:
    """Measure how much each shorter precision changes any member's probability; this checks the files, too."""
    networks = [load_network(folder, member, masks=member.segments) for member in manifest.members]
    exact = TorchMembers(networks, "cpu", "fp32").member_probabilities(probes)

    def deviation(dtype: torch.dtype) -> float:
        coarse = TorchMembers([round_network(deepcopy(network), dtype) for network in networks], "cpu", "fp32")
        return float(
            np.abs(coarse.member_probabilities(rounded(torch.from_numpy(probes), dtype).numpy()) - exact).max()
        )

    shorter = ("bf16", "fp16")
    return {name: deviation(DTYPES[name]) for name in progress(shorter, len(shorter), "measuring bf16 and fp16")}
