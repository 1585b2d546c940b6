"""The ensemble folder on disk: ``ensemble.json`` and one safetensors file for each member. Needs no torch."""

import hashlib
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nodulemc import patch
from nodulemc.arrays import Array
from nodulemc.ensemble.calibration import check_calibration
from nodulemc.errors import EnsembleError, printable
from nodulemc.limits import MAX_JSON_BYTES, MAX_MEMBER_BYTES
from nodulemc.models.architecture import Architecture
from nodulemc.ratings import ATTRIBUTES
from nodulemc.util.files import read_limited
from nodulemc.util.json_files import number, parse_json, text_or_none, write_json_atomically

FILE_NAME = "ensemble.json"
FORMAT = 2  # what is written; 1, in which all members have the ensemble's input, is read as well
_READ = (1, FORMAT)
_SHA256 = re.compile("[0-9a-f]{64}")
# Largest difference in probability from fp32 that a faster precision may make, where an ensemble states no other.
TOLERANCE = 0.005
MOUNTED_MODEL = Path("/opt/ml/model")
_PACKAGE = Path(__file__).parents[1]
# Inside the package where it was installed from a wheel, beside it in a checkout and in the container.
PACKAGED_MODEL = (_PACKAGE if (_PACKAGE / "resources").is_dir() else _PACKAGE.parent) / "resources"
_NAMES_SHOWN = 5
_REMEDY = (
    f"give an ensemble folder, that is {FILE_NAME} and the .safetensors files that it names; "
    "`nodulemc import-reference` makes one"
)
INPUT_CONTRACT = {
    "patch_size": patch.SIZE,
    "extent_mm": patch.EXTENT_MM,
    "hu_window": list(patch.HU_WINDOW),
    "upscaled": list(patch.UPSCALED),
}
# What a member may state in its place, as the LUNA25 baseline's do, which take the patch as it is.
_NOT_UPSCALED = {"upscaled": [patch.SIZE] * 3}


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        file: The name of its safetensors file in the folder.
        sha256: The file's SHA-256, lower-case hexadecimal.
        architecture: The network that the file's tensors fill.
        weight: Its relative weight in soft voting, > 0.
        seed: The random seed of its training. None if unknown.
        fold: The fold of a k-fold split that it was not trained on, from 0. None if there was none or it is unknown.
        upscales: Whether its input is the upscaled patch of the ensemble's input contract, or the patch as it is.
    """

    file: str
    sha256: str
    architecture: Architecture
    weight: float = 1.0
    seed: int | None = None
    upscales: bool = True
    fold: int | None = None

    @property
    def segments(self) -> bool:
        """Whether the file holds a decoder."""
        return self.architecture.decoder_widths is not None


@dataclass(frozen=True)
class EnsembleManifest:
    """The contents of ``ensemble.json``.

    Attributes:
        members: The members, in voting order.
        trained_on: A description of the training data. None for untrained weights.
        licence: The weights' licence.
        git_revision: The revision of the code that wrote the folder. None if unknown.
        max_deviation: For each precision ("bf16", "fp16"), the largest difference from fp32 in any member's probability
            on the probe patches. A precision that is not listed was not measured, or overflows.
        calibration: The parameters of the calibration map. None if there is none.
        tolerance: The largest such difference with which a precision is chosen automatically.
        trained_cases: The SHA-256 of the list of scans that the members were trained on (see
            ``nodulemc.ensemble.trained_cases``). None if they are not known. The list itself may be missing.
        folder: The folder that it was read from, with the members' files. None if it was not read.
        sha256: The SHA-256 of the ``ensemble.json`` that was read. It identifies the ensemble, since the file names
            the SHA-256 of every member.
    """

    members: tuple[Member, ...]
    trained_on: str | None
    licence: str | None = None
    git_revision: str | None = None
    max_deviation: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    tolerance: float = TOLERANCE
    trained_cases: str | None = None
    folder: Path | None = field(default=None, compare=False)
    sha256: str | None = field(default=None, compare=False)

    @property
    def member_names(self) -> list[str]:
        """The members' names in results: their file names without the suffix."""
        return [Path(member.file).stem for member in self.members]

    @property
    def vote_weights(self) -> Array:
        """The members' shares of the vote, which add up to 1."""
        weights = np.array([member.weight for member in self.members])
        weights = weights / weights.max()  # the sum of huge ones would overflow
        shares: Array = weights / weights.sum()
        return shares

    @property
    def segments(self) -> bool:
        """Whether at least one member has a decoder."""
        return any(member.segments for member in self.members)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The readers' ratings that at least one member predicts."""
        told = {name for member in self.members for name in member.architecture.attributes}
        return tuple(name for name in ATTRIBUTES if name in told)

    @property
    def origin(self) -> str:
        """The training data, in words that belong beside every number."""
        return origin_of(self.trained_on)

    @property
    def identity(self) -> dict[str, str]:
        """The ensemble's identity for results: the ``path`` of its folder and the ``sha256`` of its ``ensemble.json``.

        Raises:
            ValueError: it was not read from a folder.
        """
        if self.sha256 is None:
            raise ValueError("a manifest that was not read has no SHA-256")
        return {"path": str(self.location.absolute()), "sha256": self.sha256}

    @property
    def location(self) -> Path:
        """The ``folder`` of a manifest that was read.

        Raises:
            ValueError: it was not.
        """
        if self.folder is None:
            raise ValueError("a manifest that was not read has no folder")
        return self.folder

    @property
    def calibration_map(self) -> dict[str, Any]:
        """The ``calibration`` of a manifest that has one.

        Raises:
            ValueError: it has none.
        """
        if self.calibration is None:
            raise ValueError("a manifest without a calibration")
        return self.calibration

    @property
    def deviations(self) -> str:
        """The measured deviations in words."""
        return ", ".join(f"{name} {value:.5f}" for name, value in self.max_deviation.items()) or "not measured"


def origin_of(trained_on: str | None) -> str:
    """Return a manifest's ``origin`` for its ``trained_on``."""
    return f"weights trained on: {trained_on or 'nothing (untrained)'}"


def named(identity: dict[str, str]) -> str:
    """Return a manifest's ``identity`` in words."""
    return printable(f"{identity['path']} (SHA-256 {identity['sha256'][:12]})")


def find_resources() -> Path:
    """Return the default ensemble's folder: anything mounted on Grand-Challenge's model path, else the packaged one."""
    try:
        mounted = (MOUNTED_MODEL / FILE_NAME).is_file() or any(MOUNTED_MODEL.iterdir())
    except FileNotFoundError:
        mounted = False
    except OSError:  # no reason to answer with other weights: reading it says what is wrong
        mounted = True
    return MOUNTED_MODEL if mounted else PACKAGED_MODEL


def read_manifest(folder: str | Path | None = None) -> EnsembleManifest:
    """Read and check ``ensemble.json``, without the members' files.

    Args:
        folder: The folder with ``ensemble.json``, or with one folder that has it, as after unpacking an archive. None
            stands for the default ensemble (see ``find_resources``).

    Raises:
        FileError: the manifest is missing, unreadable or no JSON.
        EnsembleError: it is malformed, of another format version, or states an input contract that
            this version does not produce.
    """
    folder = _located(find_resources() if folder is None else Path(folder))
    path = folder / FILE_NAME
    stored = read_limited(path, MAX_JSON_BYTES)
    content = parse_json(stored, path)
    if not isinstance(content, dict) or content.get("format") not in _READ:
        stated = content.get("format") if isinstance(content, dict) else content
        raise EnsembleError(f"format {stated!r}", path, f"this version reads formats {_READ[0]} and {_READ[1]}")
    if content.get("input") != INPUT_CONTRACT:
        raise EnsembleError(
            f"the input contract is {content.get('input')}", path, f"this version feeds {INPUT_CONTRACT}"
        )
    try:
        manifest = EnsembleManifest(
            members=tuple(_member(entry, path) for entry in content["members"]),
            trained_on=text_or_none(content["trained_on"]),
            licence=text_or_none(content["licence"]),
            git_revision=text_or_none(content["git_revision"]),
            max_deviation={k: number(v) for k, v in content["precision"]["max_deviation"].items()},
            calibration=content["calibration"],
            tolerance=number(content["precision"]["tolerance"]),
            trained_cases=text_or_none(content.get("trained_cases")),
            folder=folder,
            sha256=hashlib.sha256(stored).hexdigest(),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise EnsembleError(f"a field is missing or malformed ({error!r})", path, "make the folder again") from error
    check_calibration(manifest.calibration, path)
    if not manifest.members:
        raise EnsembleError("no members", path, "an ensemble has at least one member")
    repeated = [file for file, times in Counter(member.file for member in manifest.members).items() if times > 1]
    if repeated:
        raise EnsembleError(f"member {repeated[0]} is listed twice", path, "list it once, with the sum of the weights")
    limits = {f"largest deviation of {name}": value for name, value in manifest.max_deviation.items()}
    negative = [f"{name} {value}" for name, value in (limits | {"tolerance": manifest.tolerance}).items() if value < 0]
    if negative:
        raise EnsembleError(f"the {negative[0]} is negative", path, "make the folder again")
    if manifest.trained_cases is not None:
        _check_sha256(manifest.trained_cases, "the list of training cases", path)
    return manifest


def _located(folder: Path) -> Path:
    """Return the folder with the manifest: this one, or the only one directly below it that has one."""
    try:
        if (folder / FILE_NAME).is_file():
            return folder
        if not folder.is_dir():
            raise EnsembleError(f"no {FILE_NAME}, as this is no folder", folder, _REMEDY)
        entries = sorted(folder.iterdir())
        below = [entry for entry in entries if (entry / FILE_NAME).is_file()]
    except OSError as error:
        raise EnsembleError(f"cannot read the folder ({error.strerror})", folder, "check its permissions") from error
    if len(below) == 1:
        return below[0]
    if below:
        raise EnsembleError(f"it holds {len(below)} ensembles ({_listed(below)})", folder, "give one of them")
    raise EnsembleError(f"no {FILE_NAME} in it or one folder below; it holds {_listed(entries)}", folder, _REMEDY)


def _listed(paths: list[Path]) -> str:
    """Return the first few names, those of folders with a slash."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in paths[:_NAMES_SHOWN]]
    left = len(paths) - len(names)
    return ", ".join(names) + (f" and {left} more" if left else "") or "nothing"


def _member(entry: dict[str, Any], path: Path) -> Member:
    member = Member(
        file=entry["file"],
        sha256=entry["sha256"],
        architecture=Architecture.from_json(entry["architecture"]),
        weight=number(entry["weight"]),
        seed=entry["seed"],
        upscales=_upscales(INPUT_CONTRACT | entry.get("input", {}), path),
        fold=entry.get("fold"),
    )
    if Path(member.file).name != member.file or not member.file.endswith(".safetensors") or "\0" in member.file:
        raise EnsembleError(f"member file {member.file!r}", path, "name a .safetensors file inside the folder")
    _check_sha256(member.sha256, member.file, path)
    if member.weight <= 0:
        raise EnsembleError(f"{member.file} has weight {member.weight}", path, "give a finite weight above 0")
    if member.seed is not None and type(member.seed) is not int:
        raise EnsembleError(f"{member.file} has seed {member.seed!r:.40}", path, "give an integer or null")
    if member.fold is not None and (type(member.fold) is not int or member.fold < 0):
        raise EnsembleError(f"{member.file} has fold {member.fold!r:.40}", path, "give an integer from 0, or null")
    return member


def _check_sha256(stated: str, of: str, path: Path) -> None:
    if not _SHA256.fullmatch(stated):
        raise EnsembleError(f"{of} has SHA-256 {stated!r:.80}", path, "give 64 hexadecimal digits")


def _upscales(contract: dict[str, Any], path: Path) -> bool:
    """Return whether a member's input is the upscaled patch of the ensemble's contract, not the patch itself."""
    if contract in (INPUT_CONTRACT, INPUT_CONTRACT | _NOT_UPSCALED):
        return contract == INPUT_CONTRACT
    raise EnsembleError(
        f"a member's input contract is {contract}", path, f"this version feeds {INPUT_CONTRACT} or {_NOT_UPSCALED}"
    )


def write_manifest(folder: str | Path, manifest: EnsembleManifest) -> None:
    """Write ``ensemble.json`` atomically.

    Raises:
        FileError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "trained_on": manifest.trained_on,
        "licence": manifest.licence,
        "git_revision": manifest.git_revision,
        "input": INPUT_CONTRACT,
        "precision": {"tolerance": manifest.tolerance, "max_deviation": manifest.max_deviation},
        "calibration": manifest.calibration,
        "trained_cases": manifest.trained_cases,
        "members": [_member_json(member) for member in manifest.members],
    }
    write_json_atomically(Path(folder) / FILE_NAME, content)


def _member_json(member: Member) -> dict[str, Any]:
    content = asdict(member) | {"architecture": member.architecture.to_json()}
    return content if content.pop("upscales") else content | {"input": _NOT_UPSCALED}


def member_bytes(folder: str | Path, member: Member) -> bytes:
    """Return the content of a member's file, read once and checked against its SHA-256.

    Raises:
        FileError: the file is unreadable, no regular file or too large.
        EnsembleError: it is missing, or its checksum differs.
    """
    path = Path(folder) / member.file
    try:
        # Reading sets aside as much memory as the limit says.
        limit = min(path.stat().st_size, MAX_MEMBER_BYTES)
    except OSError as error:
        raise EnsembleError(f"cannot read the member ({error.strerror})", path, "copy the whole folder") from error
    content = read_limited(path, limit)
    require_sha256(content, member.sha256, path, "the file is damaged; copy it again")
    return content


def require_sha256(content: bytes, stated: str, path: Path, remedy: str) -> None:
    """Check a file's content against the SHA-256 that ``ensemble.json`` states.

    Raises:
        EnsembleError: it has another one.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise EnsembleError(f"SHA-256 is {found[:12]}…, {FILE_NAME} says {stated[:12]}…", path, remedy)
