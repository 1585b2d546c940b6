"""The ensemble folder on disk: ``ensemble.json`` and one safetensors file per seed. Needs no torch."""

import hashlib
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc import patch
from nodulemc.calibration_map import check_calibration
from nodulemc.errors import EnsembleError
from nodulemc.json_files import read_json, read_limited, write_json_atomically
from nodulemc.json_values import number, text_or_none
from nodulemc.limits import MAX_SEED_BYTES
from nodulemc.models.architecture import Architecture

FILE_NAME = "ensemble.json"
FORMAT = 1
_SHA256 = re.compile("[0-9a-f]{64}")
# Largest difference in probability from fp32 that a faster precision may make, where an ensemble states no other.
TOLERANCE = 0.005
PLATFORM_MODEL = Path("/opt/ml/model")
PACKAGED_MODEL = Path(__file__).parent.parent / "resources"
INPUT_CONTRACT = {
    "patch_size": patch.SIZE,
    "extent_mm": patch.EXTENT_MM,
    "hu_window": list(patch.HU_WINDOW),
    "upscaled": list(patch.UPSCALED),
}


@dataclass(frozen=True)
class Member:
    """One seed of an ensemble.

    Attributes:
        file: safetensors file name inside the folder.
        sha256: the file's SHA-256, lower-case hexadecimal.
        architecture: how to build the network that the file's tensors fill.
        weight: relative weight in soft voting, > 0.
        seed: the training run's seed, None where unknown.
    """

    file: str
    sha256: str
    architecture: Architecture
    weight: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What ``ensemble.json`` says.

    Attributes:
        members: the seeds, in voting order.
        trained_on: what the weights were trained on; None for untrained weights.
        licence: the weights' licence.
        git_revision: of the code that wrote the folder, None where unknown.
        max_deviation: precision ("bf16", "fp16") -> largest difference from fp32 in any seed's probability
            that was seen on the probe patches; a precision that is not listed was not measured, or overflows.
        calibration: parameters of the calibration map, None where there is none.
        tolerance: largest such difference with which a precision is chosen by itself.
    """

    members: tuple[Member, ...]
    trained_on: str | None
    licence: str | None = None
    git_revision: str | None = None
    max_deviation: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    tolerance: float = TOLERANCE

    @property
    def seed_names(self) -> list[str]:
        """The members' names in results: their file names without the suffix."""
        return [Path(member.file).stem for member in self.members]

    @property
    def vote_weights(self) -> np.ndarray:
        """The members' shares of the vote, which add up to 1."""
        weights = np.array([member.weight for member in self.members])
        weights = weights / weights.max()  # the sum of huge ones would overflow
        return weights / weights.sum()

    @property
    def origin(self) -> str:
        """What the weights were trained on, in words that belong beside every number."""
        return f"weights trained on: {self.trained_on or 'nothing (untrained)'}"

    @property
    def deviations(self) -> str:
        """The measured deviations in words."""
        return ", ".join(f"{name} {value:.5f}" for name, value in self.max_deviation.items()) or "not measured"


def find_resources() -> Path:
    """The ensemble to use by default: the one mounted on the platform's model path, else the packaged one."""
    try:
        mounted = (PLATFORM_MODEL / FILE_NAME).is_file()
    except PermissionError:  # no reason to answer with other weights: reading it says what is wrong
        mounted = True
    return PLATFORM_MODEL if mounted else PACKAGED_MODEL


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``ensemble.json``; the members' files are not touched.

    Raises:
        EnsembleError: the manifest is missing, unreadable, malformed, of another format version, or states an input
            contract that this version does not produce.
    """
    path = Path(folder) / FILE_NAME
    try:
        found = path.is_file()
    except OSError as error:
        raise EnsembleError(f"cannot read the folder ({error.strerror})", folder, "check its permissions") from error
    if not found:
        raise EnsembleError(
            f"no {FILE_NAME}",
            folder,
            "give an ensemble folder, for example one made by `nodulemc import-reference`",
        )
    content = read_json(path, EnsembleError)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        stated = content.get("format") if isinstance(content, dict) else content
        raise EnsembleError(f"format {stated!r}", path, f"this version reads format {FORMAT}")
    if content.get("input") != INPUT_CONTRACT:
        raise EnsembleError(
            f"the input contract is {content.get('input')}", path, f"this version feeds {INPUT_CONTRACT}"
        )
    try:
        manifest = Manifest(
            members=tuple(_member(entry, path) for entry in content["members"]),
            trained_on=text_or_none(content["trained_on"]),
            licence=text_or_none(content["licence"]),
            git_revision=text_or_none(content["git_revision"]),
            max_deviation={k: number(v) for k, v in content["precision"]["max_deviation"].items()},
            calibration=content["calibration"],
            tolerance=number(content["precision"]["tolerance"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise EnsembleError(f"a field is missing or malformed ({error!r})", path, "make the folder again") from error
    check_calibration(manifest.calibration, path)
    if not manifest.members:
        raise EnsembleError("no members", path, "an ensemble has at least one seed")
    repeated = [file for file, times in Counter(member.file for member in manifest.members).items() if times > 1]
    if repeated:
        raise EnsembleError(f"member {repeated[0]} is listed twice", path, "list it once, with the sum of the weights")
    limits = {f"largest deviation of {name}": value for name, value in manifest.max_deviation.items()}
    negative = [f"{name} {value}" for name, value in (limits | {"tolerance": manifest.tolerance}).items() if value < 0]
    if negative:
        raise EnsembleError(f"the {negative[0]} is negative", path, "make the folder again")
    return manifest


def _member(entry: dict[str, Any], path: Path) -> Member:
    member = Member(
        file=entry["file"],
        sha256=entry["sha256"],
        architecture=Architecture.from_json(entry["architecture"]),
        weight=number(entry["weight"]),
        seed=entry["seed"],
    )
    if Path(member.file).name != member.file or not member.file.endswith(".safetensors") or "\0" in member.file:
        raise EnsembleError(f"member file {member.file!r}", path, "name a .safetensors file inside the folder")
    if not _SHA256.fullmatch(member.sha256):
        raise EnsembleError(f"{member.file} has SHA-256 {member.sha256!r:.80}", path, "give 64 hexadecimal digits")
    if member.weight <= 0:
        raise EnsembleError(f"{member.file} has weight {member.weight}", path, "give a finite weight above 0")
    if member.seed is not None and type(member.seed) is not int:
        raise EnsembleError(f"{member.file} has seed {member.seed!r:.40}", path, "give an integer or null")
    return member


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write ``ensemble.json`` atomically.

    Raises:
        EnsembleError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "trained_on": manifest.trained_on,
        "licence": manifest.licence,
        "git_revision": manifest.git_revision,
        "input": INPUT_CONTRACT,
        "precision": {"tolerance": manifest.tolerance, "max_deviation": manifest.max_deviation},
        "calibration": manifest.calibration,
        "members": [asdict(m) | {"architecture": m.architecture.to_json()} for m in manifest.members],
    }
    write_json_atomically(Path(folder) / FILE_NAME, content, EnsembleError)


def member_bytes(folder: str | Path, member: Member) -> bytes:
    """A member's file content, read once and checked against its SHA-256.

    Raises:
        EnsembleError: the file is missing, unreadable, no regular file or too large, or its checksum differs.
    """
    path = Path(folder) / member.file
    try:
        # Reading sets aside as much memory as the limit says.
        limit = min(path.stat().st_size, MAX_SEED_BYTES)
    except OSError as error:
        raise EnsembleError(f"cannot read the seed ({error.strerror})", path, "copy the whole folder") from error
    content = read_limited(path, limit, EnsembleError)
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise EnsembleError(
            f"SHA-256 is {found[:12]}…, {FILE_NAME} says {member.sha256[:12]}…",
            path,
            "the file is damaged; copy it again",
        )
    return content
