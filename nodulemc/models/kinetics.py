"""Kinetics-400 weights for the backbones: where they come from, and loading them in full."""

import hashlib
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from nodulemc.errors import EnsembleError
from nodulemc.models.checkpoints import fill, read_tensors
from nodulemc.models.multitask import MultiTaskI3d
from nodulemc.models.tensor_shapes import backbone_shapes, check_names
from nodulemc.util.files import make_folder, write_atomically


@dataclass(frozen=True)
class KineticsFile:
    """A published weight file.

    Attributes:
        name: file name.
        url: where it is published.
        size: in bytes, None where it is not known.
        sha256: its checksum, None where the publisher states none.
        classifier: prefix of the tensors of the Kinetics classifier, which the backbone has no place for.
    """

    name: str
    url: str
    size: int | None
    sha256: str | None
    classifier: str

    def by_hand(self, path: Path, sha256: str) -> str:
        """What to do where it cannot be downloaded to ``path``."""
        size = f"{self.size:,} bytes, " if self.size else ""
        return f"fetch this file by hand ({size}SHA-256 {sha256}); save it as {path}, or name it in model.kinetics"


KINETICS_FILES = {
    "inception_i3d": KineticsFile(
        "model_rgb.pth",
        "https://github.com/DIAGNijmegen/luna25-baseline-public/raw/main/resources/model_rgb.pth",
        50_887_222,
        "9729d6f029170c682ffe8d57ddda2ead49cf232297db7b7bdec0fa316fe6764a",
        "conv3d_0c_1x1.",
    ),
    "i3d_r50": KineticsFile(
        "I3D_8x8_R50.pyth",
        "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth",
        None,
        None,
        "blocks.6.",
    ),
}


def load_kinetics(model: MultiTaskI3d, backbone: str, path: str | Path) -> None:
    """Fill a model's backbone from a Kinetics-400 weight file, every tensor accounted for.

    Args:
        model: its head and decoder are left as they are.
        backbone: "inception_i3d" or "i3d_r50", what ``model`` was built with.
        path: ``model_rgb.pth`` of the LUNA25 baseline or pytorchvideo's ``I3D_8x8_R50.pyth``.

    Raises:
        EnsembleError: the file is no checkpoint, or its tensors are not exactly the backbone's and the
            Kinetics classifier's.
    """
    tensors = read_tensors(path, nests=("model_state",))
    classifier = KINETICS_FILES[backbone].classifier
    tensors = {name: value for name, value in tensors.items() if not name.startswith(classifier)}
    tensors = check_names(tensors, backbone_shapes(backbone), path)
    fill(model.backbone, {name: value.float() for name, value in tensors.items()})


def fetch_kinetics(backbone: str, folder: str | Path, *, sha256: str | None = None) -> Path:
    """Download a backbone's Kinetics-400 weights unless they are there already, and check them.

    Args:
        backbone: "inception_i3d" or "i3d_r50".
        folder: where the file lies afterwards.
        sha256: the expected checksum; needed for the I3D-R50, whose publisher states none.

    Returns:
        The file's path.

    Raises:
        EnsembleError: no checksum is known, the download fails, or the checksum differs.
        FileError: the file cannot be read or written.
    """
    source = KINETICS_FILES[backbone]
    path = Path(folder) / source.name
    expected = sha256 or source.sha256
    if expected is None:
        raise EnsembleError(
            "no published SHA-256", source.url, "download the file yourself and name it in model.kinetics"
        )
    if path.is_file():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EnsembleError(f"cannot read the file ({error.strerror})", path, "check its permissions") from error
        _check(content, expected, path, "delete the file and fetch it again")
        return path
    try:
        with urllib.request.urlopen(source.url, timeout=60) as response:  # noqa: S310, the address is a constant
            content = response.read()
    # A connection that breaks amid the answer is an HTTPException or a bare OSError.
    except (OSError, HTTPException) as error:
        raise EnsembleError(f"download failed ({error})", source.url, source.by_hand(path, expected)) from error
    _check(content, expected, source.url, source.by_hand(path, expected))
    make_folder(path.parent)
    write_atomically(path, content)
    return path


def _check(content: bytes, expected: str, where: object, remedy: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise EnsembleError(f"SHA-256 is {found[:12]}…, not {expected[:12]}…", where, remedy)
