import json
import os
import pickle

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import centre_of, make_ct
from models.reference_files import reference_state, save_reference
from models.reference_network import baseline_logit, reference_feature_maps, reference_logit
from torch.nn import functional as F

from nodulemc import cli
from nodulemc.ensemble import writer as ensemble_writer
from nodulemc.ensemble.backends.torch_backend import TorchMembers, load_network
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import read_manifest
from nodulemc.ensemble.reference_import import import_reference, reference_network
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.errors import EnsembleError, FileError


@pytest.fixture(autouse=True)
def one_probe(monkeypatch):
    """Measure bf16 on a quarter of one patch, as small as a baseline's pooling allows: eight take a minute."""
    probes = ensemble_writer.probe_patches()[-1:, ::4]
    monkeypatch.setattr(ensemble_writer, "probe_patches", lambda: probes)


def reference_patch(image: sitk.Image, point) -> torch.Tensor:
    """The reference's patch (1, 3, 64, 64, 64) of an axis-aligned CT, but for its rounding of HU: numpy, one axis after
    the other.
    """
    hu = sitk.GetArrayFromImage(image).astype(np.float64)
    for axis, (spacing, origin) in enumerate(zip(image.GetSpacing()[::-1], image.GetOrigin()[::-1], strict=True)):
        at = (point[2 - axis] + (np.arange(64) - 31.5) * 50 / 64 - origin) / spacing
        low = np.floor(at).astype(int)
        fraction = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        hu = hu.take(low, axis) * (1 - fraction) + hu.take(low + 1, axis) * fraction
    return torch.from_numpy(np.clip((hu + 1000) / 1400, 0, 1).astype(np.float32)).expand(1, 3, 64, 64, 64)


@torch.no_grad()
def expected_logit(file, form: str, state: dict[str, torch.Tensor], patch: torch.Tensor) -> float:
    """What the public network gives for the patch."""
    if form == "baseline":
        return baseline_logit(torch.load(file), patch).item()
    return reference_logit(state, reference_feature_maps(state, F.interpolate(patch, size=(64, 128, 128)))).item()


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


@pytest.mark.heavy
def test_imported_checkpoints_give_the_references_logits_through_inference(tmp_path, capsys):
    forms = ("mclab", "mclab", "single_task", "baseline")  # MClab's with aux_model.* and without
    states = [reference_state(11 + k, decoder=k == 1) for k in range(len(forms))]
    files = [save_reference(tmp_path / f"{k}.pth", *rest) for k, rest in enumerate(zip(states, forms, strict=True))]
    assert run("import-reference", *files, "--output", tmp_path / "ensemble") == 0
    written = capsys.readouterr().out
    assert written.startswith(f"written: {tmp_path / 'ensemble'}: {len(forms)} member")

    image = make_ct(size=(100, 90, 60))
    point = (np.array(centre_of(image)) + (2.2, -1.7, 0.9)).tolist()
    (tmp_path / "images" / "chest-ct").mkdir(parents=True)
    sitk.WriteImage(image, str(tmp_path / "images" / "chest-ct" / "ct.mha"))
    (tmp_path / "points.json").write_text(json.dumps({"points": [{"name": "n1", "point": point}]}))
    assert run("predict", tmp_path / "images" / "chest-ct" / "ct.mha", "--points", tmp_path / "points.json",
               "--output", tmp_path / "result.json", "--device", "cpu", "--precision", "fp32",
               "--resources", tmp_path / "ensemble") == 0  # fmt: skip

    (result,) = json.loads((tmp_path / "result.json").read_text())["points"]
    patch = reference_patch(image, point)
    expected = [expected_logit(*given, patch) for given in zip(files, forms, states, strict=True)]
    assert np.std([0, *expected]) > 0.05
    assert [logit(p) for p in result["per_seed"].values()] == pytest.approx(expected, abs=2e-3)
    assert result["probability"] == pytest.approx(np.mean(1 / (1 + np.exp(-np.array(expected)))), abs=1e-3)
    manifest = read_manifest(tmp_path / "ensemble")
    in_torch = TorchMembers([load_network(manifest.folder, member) for member in manifest.members], "cpu", "fp32")
    found = in_torch.member_probabilities(patch[:, 0].numpy())[0]
    assert [logit(p) for p in found] == pytest.approx(expected, abs=2e-3)


@pytest.mark.heavy
def test_a_baselines_member_states_its_head_and_its_input(tmp_path):
    state = reference_state(21)
    files = [save_reference(tmp_path / f"{form}.pth", state, form=form) for form in ("baseline", "single_task")]
    import_reference(files, tmp_path / "ensemble")
    content = json.loads((tmp_path / "ensemble" / "ensemble.json").read_text())
    baseline, single_task = content["members"]
    assert content["format"] == 2
    assert baseline["architecture"]["pooling"] == "windows_2x2x2"
    assert baseline["input"] == {"upscaled": [64, 64, 64]}
    assert "pooling" not in single_task["architecture"]
    assert "input" not in single_task
    assert baseline["sha256"] == single_task["sha256"]  # the tensors are the same, what is made of them is not
    by_member = Ensemble.load(tmp_path / "ensemble", device="cpu", precision="fp32").member_probabilities(
        probe_patches()[-1:]
    )
    assert abs(logit(by_member[0, 0]) - logit(by_member[0, 1])) > 0.1


@pytest.mark.heavy
def test_the_manifest_says_where_the_weights_come_from(tmp_path):
    file = save_reference(tmp_path / "best.pth", reference_state(1))
    manifest = import_reference([file], tmp_path / "ensemble")
    assert manifest == read_manifest(tmp_path / "ensemble")
    assert manifest.trained_on == "imported from best.pth"
    assert manifest.members[0].architecture.decoder_widths is None
    assert manifest.max_deviation["bf16"] > 0


@pytest.mark.heavy
def test_the_decoder_is_kept_on_request(tmp_path):
    file = save_reference(tmp_path / "best.pth", reference_state(1, decoder=True))
    _, tensors = reference_network(file, keep_decoder=True)
    assert sum(name.startswith("aux_model.") for name in tensors) == 5 * 6 + 2
    manifest = import_reference([file], tmp_path / "ensemble", keep_decoder=True)
    assert manifest.members[0].architecture.decoder_widths == (832, 480, 192, 64, 64)
    Ensemble.load(tmp_path / "ensemble", device="cpu", masks=True)
    bare = save_reference(tmp_path / "bare.pth", reference_state(1))
    with pytest.raises(EnsembleError, match=r"32 tensors missing|tensors missing \(aux_model"):
        import_reference([bare], tmp_path / "other", keep_decoder=True)
    baseline = save_reference(tmp_path / "baseline.pth", reference_state(1), form="baseline")
    with pytest.raises(EnsembleError, match=r"no decoder to keep: baseline\.pth: import without --keep-decoder"):
        import_reference([baseline], tmp_path / "other", keep_decoder=True)


@pytest.mark.parametrize("wrap", [
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model_state_dict": s},
    lambda s: {f"module.{name}": value for name, value in s.items()},
])  # fmt: skip
def test_usual_wrappings_are_unwrapped(tmp_path, wrap):
    state = reference_state(2)
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    _, tensors = reference_network(tmp_path / "wrapped.pth")
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)


class Malicious:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # PyTorch, before it refuses it
@pytest.mark.parametrize("writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, writer):
    writer({"classifier_head.2.bias": Malicious(tmp_path / "owned")}, tmp_path / "evil.pth")
    with pytest.raises(EnsembleError, match=r"more than tensors|not a PyTorch checkpoint"):
        import_reference([tmp_path / "evil.pth"], tmp_path / "ensemble")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "ensemble").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch, on sparse and quantised tensors
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(1, 4).to_sparse(), "sparse, nested or quantised"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)]), "sparse, nested or quantised"),
        (lambda: torch.quantize_per_tensor(torch.ones(1, 4), 0.1, 0, torch.qint8), "sparse, nested or quantised"),
        (lambda: torch.empty(1, 4, device="meta"), "without content"),
        (lambda: torch.ones(1, 4, dtype=torch.int64), "of type torch.int64"),
        (lambda: torch.ones(1, 4, dtype=torch.complex64), "of type torch.complex64"),
    ],
)
def test_a_tensor_that_fills_no_network_is_refused(tmp_path, make, message):
    torch.save({"num_batches_tracked": torch.tensor(3), "fc.weight": make()}, tmp_path / "x.pth")
    with pytest.raises(EnsembleError, match=rf"tensor fc\.weight is {message}: .*x\.pth"):
        reference_network(tmp_path / "x.pth")


def test_two_tensors_of_one_name_are_refused(tmp_path):
    torch.save({"fc.bias": torch.zeros(1), "module.fc.bias": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(EnsembleError, match="two tensors have one name"):
        reference_network(tmp_path / "x.pth")


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(FileError, match="not a regular file"):
        reference_network(tmp_path / "x.pth")


def test_a_number_beyond_fp32_is_refused_before_anything_is_written(tmp_path):
    state = reference_state(1)
    state["classifier_head.2.weight"] = state["classifier_head.2.weight"].double() * 1e300
    file = save_reference(tmp_path / "x.pth", state)
    with pytest.raises(EnsembleError, match=r"NaN or infinite weights: .*x\.pth"):
        import_reference([file], tmp_path / "ensemble")
    assert not (tmp_path / "ensemble").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(EnsembleError, match=r"x\.pth"):
        import_reference([tmp_path / "x.pth"], tmp_path / "ensemble")
    with pytest.raises(EnsembleError, match="cannot read the checkpoint"):
        import_reference([tmp_path / "none.pth"], tmp_path / "ensemble")


def test_a_state_dict_of_something_else_is_refused(tmp_path):
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(EnsembleError, match="tensors missing"):
        import_reference([tmp_path / "other.pth"], tmp_path / "ensemble")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({"fc.weight": torch.ones(1, 1024)}),
            r"two classifiers, fc and conv3d_0c_1x1: .*early\.pth",
        ),
        (
            lambda t: t.update({"conv3d_0c_1x1.conv3d.weight": torch.ones(1, 1024, 1, 1, 2)}),
            r"1 tensor of another shape \(classifier_head\.2\.weight\): .*early\.pth",
        ),
        (
            lambda t: t.update({"conv3d_0c_1x1.conv3d.weight": torch.ones(2, 1024, 1, 1, 1)}),
            r"2 tensors missing \(classifier_head\.2\.bias, classifier_head\.2\.weight\): .*early\.pth",
        ),
        (lambda t: t.pop("conv3d_0c_1x1.conv3d.bias"), r"1 tensor missing \(classifier_head\.2\.bias\): .*early\.pth"),
    ],
)
def test_a_baseline_with_another_classifier_is_refused(tmp_path, change, message):
    tensors = torch.load(save_reference(tmp_path / "x.pth", reference_state(1), form="baseline"))
    change(tensors)
    torch.save(tensors, tmp_path / "early.pth")
    with pytest.raises(EnsembleError, match=message):
        import_reference([tmp_path / "early.pth"], tmp_path / "ensemble")
    assert not (tmp_path / "ensemble").exists()
