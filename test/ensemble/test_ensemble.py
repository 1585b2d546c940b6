import csv
import hashlib
import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import SimpleITK as sitk
import torch
from conftest import centre_of, make_ct
from ensembles import make_untrained_ensemble, shrunk_probe, untrained_weights

from nodulemc.cli import main
from nodulemc.ensemble import manifest
from nodulemc.ensemble.backends import openvino_backend, openvino_runtime
from nodulemc.ensemble.backends.openvino_backend import OpenVinoMembers
from nodulemc.ensemble.backends.torch_backend import TorchMembers, load_network
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import EnsembleManifest, Member, read_manifest, write_manifest
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.ensemble.weights import read_weights
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.errors import EnsembleError
from nodulemc.hardware import bf16_instructions
from nodulemc.models.architecture import Architecture
from nodulemc.models.decoder import published_widths
from nodulemc.models.inception_i3d import InceptionI3d
from nodulemc.models.multitask import create_model
from nodulemc.models.torch_backbone import TorchBackbone
from nodulemc.output.multiple_points import multiple_points
from nodulemc.prediction import predict

pytestmark = pytest.mark.heavy

INCEPTION = Architecture("inception_i3d")
DECODING = Architecture("inception_i3d", decoder_widths=(8, 8, 8, 8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble")
    make_untrained_ensemble(path, (1, 2), weights=(1.0, 3.0), dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def ensemble(folder):
    return Ensemble.load(folder, device="cpu", precision="fp32")


def test_without_a_folder_it_is_the_ensemble_that_commands_use(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MOUNTED_MODEL", folder)
    assert Ensemble.load(device="cpu").manifest == read_manifest(folder)
    monkeypatch.setattr(manifest, "MOUNTED_MODEL", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    assert Ensemble.load(device="cpu").manifest == read_manifest(manifest.PACKAGED_MODEL)


def plain_probability(seed: int, patch: np.ndarray, architecture: Architecture = INCEPTION) -> float:
    """One patch through the network as it is trained: three channels, BatchNorm unfolded, one nodule alone."""
    model = create_model(architecture, with_decoder=False)
    model.load_state_dict(untrained_weights(architecture, seed))
    model.eval()
    upscaled = torch.from_numpy(patch.repeat(2, axis=1).repeat(2, axis=2))
    with torch.no_grad():
        return torch.sigmoid(model(upscaled.expand(1, 3, 64, 128, 128))).item()


def half_sized(patches: np.ndarray) -> np.ndarray:
    """Every other voxel: an eighth of the work, which PyTorch, but not OpenVINO, takes."""
    return patches[:, ::2, ::2, ::2]


def plain_mask(tensors: dict[str, torch.Tensor], architecture: Architecture, patch: np.ndarray) -> np.ndarray:
    """The same of a mask, (1, S, S, S) to (1, S, S, S)."""
    model = create_model(architecture, with_decoder=True)
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in tensors.items()})
    upscaled = torch.from_numpy(patch.repeat(2, axis=2).repeat(2, axis=3))
    with torch.no_grad():
        logits = model.eval().forward_multitask(upscaled[None].expand(1, 3, -1, -1, -1), patch.shape[-1])[1]
    return torch.sigmoid(logits).numpy()


@pytest.fixture
def backends(monkeypatch):
    """The kinds of backends in the order they are made."""
    made = []
    for kind in (OpenVinoMembers, TorchMembers):
        start = kind.__init__
        monkeypatch.setattr(
            kind, "__init__", lambda self, *a, start=start, **k: made.append(type(self)) or start(self, *a, **k)
        )
    return made


@pytest.fixture(scope="module")
def torch_members(folder):
    """The seeds as they run on a GPU, or without OpenVINO."""
    return TorchMembers([load_network(folder, member) for member in read_manifest(folder).members], "cpu", "fp32")


@pytest.fixture(scope="module")
def plain_probabilities():
    """Of two probes and both seeds, (2, 2)."""
    return np.array([[plain_probability(seed, patch) for seed in (1, 2)] for patch in probe_patches()[:2]])


@pytest.mark.parametrize("backend", ["ensemble", "torch_members"])
def test_batched_folded_seeds_equal_the_plain_network(backend, plain_probabilities, request):
    by_member = request.getfixturevalue(backend).member_probabilities(probe_patches()[:2])
    assert by_member.shape == (2, 2)
    np.testing.assert_allclose(by_member, plain_probabilities, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("backend", "tolerance", "step"), [("ensemble", 0, 1), ("torch_members", 1e-6, 2)])
def test_neither_batch_size_nor_order_changes_a_probability(backend, tolerance, step, request):
    seeds = request.getfixturevalue(backend)
    # PyTorch takes patches of any size.
    patches, order = probe_patches()[:2, ::step, ::step, ::step], [1, 0]
    together = seeds.member_probabilities(patches)
    assert np.ptp(together, axis=0).min() > 1e-4  # the nodules do differ
    np.testing.assert_allclose(seeds.member_probabilities(patches[order]), together[order], atol=tolerance, rtol=0)
    alone = np.concatenate([seeds.member_probabilities(patch[None]) for patch in patches[::-1]])[::-1]
    np.testing.assert_allclose(together, alone, atol=tolerance, rtol=0)


def test_pytorch_takes_over_where_openvino_is_missing(folder, ensemble, backends, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fallback = Ensemble.load(folder, device="cpu", precision="fp32")
    assert backends == [TorchMembers]
    patch = probe_patches()[:1]
    np.testing.assert_allclose(
        fallback.member_probabilities(patch), ensemble.member_probabilities(patch), atol=1e-5, rtol=0
    )


class Mean(torch.nn.Module):
    """A network whose logit is the patch's mean, and which stays on the CPU.

    Args:
        error: what moving it to the GPU raises; nothing where None.
        fits: how many nodules there is memory for.
        precisions: the types of numbers that there is memory for.

    Attributes:
        done: the sizes of the batches that it has done.
        failed: weak references to those that did not fit.
    """

    def __init__(self, error: Exception | None = None, *, fits=32, precisions=(torch.float32, torch.bfloat16)) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.error, self.fits, self.precisions = error, fits, precisions
        self.done, self.failed = [], []

    def to(self, device, *arguments, **options):
        if device == "cuda":
            if self.error:
                raise self.error
            device = "cpu"
        return super().to(device, *arguments, **options)

    def classify(self, x):
        if len(x) > self.fits or x.dtype not in self.precisions:
            self.failed.append(weakref.ref(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.done.append(len(x))
        return x.mean(dim=(1, 2, 3, 4))


PATCHES = np.arange(9, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 4), np.float32)
MEANS = 1 / (1 + np.exp(-np.arange(9.0)))


@pytest.mark.parametrize(("fits", "batches"), [(4, [4, 4, 1]), (1, [1] * 9)])
def test_a_batch_too_large_for_the_memory_is_halved(monkeypatch, fits, batches):
    networks = [Mean(fits=fits), Mean(fits=fits)]
    seeds = TorchMembers(networks, "cpu", "fp32")
    monkeypatch.setattr(seeds, "batch_size", 32)
    np.testing.assert_allclose(seeds.member_probabilities(PATCHES), np.stack([MEANS, MEANS], axis=1), rtol=1e-6)
    assert [network.done for network in networks] == [batches, batches]


def test_a_gpu_too_small_for_one_nodule_gives_way_to_the_cpu(monkeypatch, caplog):
    network, kept = Mean(precisions=(torch.float32,)), []
    # What a failed batch still holds cannot be given back.
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: kept.extend(batch() for batch in network.failed))
    seeds = TorchMembers([network], "cpu", "bf16")
    np.testing.assert_allclose(seeds.member_probabilities(PATCHES)[:, 0], MEANS, rtol=1e-6)
    assert (seeds.device, seeds.precision) == ("cpu", "fp32")
    assert "too small for one nodule: running on the CPU" in caplog.text
    assert kept
    assert set(kept) == {None}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_gpu_too_small_for_the_seeds_gives_way_to_the_cpu(error, caplog):
    seeds = TorchMembers([Mean(), Mean(error)], "cuda", "fp16")
    assert (seeds.device, seeds.precision) == ("cpu", "fp32")
    assert "running on the CPU" in caplog.text
    np.testing.assert_allclose(seeds.member_probabilities(PATCHES)[:, 1], MEANS, rtol=1e-6)


def test_another_fault_of_the_gpu_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="illegal memory access"):
        TorchMembers([Mean(RuntimeError("CUDA error: an illegal memory access"))], "cuda", "fp16")


def voting(weights, seeds=None) -> Ensemble:
    members = (Member(f"seed_{k}.safetensors", "0" * 64, DECODING, weight) for k, weight in enumerate(weights))
    return Ensemble(EnsembleManifest(tuple(members), trained_on="phantoms"), seeds, masks=True)


@pytest.mark.parametrize("weight", [1.7e308, 5e-324])
def test_equal_weights_of_any_size_vote_equally(weight):
    assert voting([weight, weight]).vote(np.array([[0.60, 0.73]])) == pytest.approx([0.665])


@pytest.mark.parametrize("task", ["member_probabilities", "mask_probabilities"])
@pytest.mark.parametrize(("precision", "remedy"), [("fp16", "use --precision fp32"), ("fp32", "use other weights")])
def test_a_network_that_overflows_gives_no_number(task, precision, remedy):
    seeds = SimpleNamespace(precision=precision, **{task: lambda patches: np.array([[0.5, 0.5], [0.5, np.nan]])})
    with pytest.raises(EnsembleError, match=f"the network overflows in {precision}: seed_1: {remedy}"):
        getattr(voting([1, 1], seeds), task)(PATCHES)


@pytest.mark.parametrize("place", [0, 1])
def test_neither_number_nor_mask_may_overflow_where_both_are_made(place):
    both = np.full((1, 2, 1), 0.5), np.full((1, 2, 2, 2, 2), 0.5)
    both[place].flat[-1] = np.inf
    seeds = SimpleNamespace(precision="bf16", member_findings_and_masks=lambda patches, attributes: both)
    with pytest.raises(EnsembleError, match="the network overflows in bf16: seed_1: use --precision fp32"):
        voting([1, 1], seeds).findings_and_masks(PATCHES)


def test_soft_voting_is_the_weighted_mean_of_probabilities(ensemble):
    # Of logits it would be sigmoid(mean(logit 0.1, 3 x logit 0.9)) = 0.75.
    assert ensemble.vote(np.array([[0.1, 0.9], [0.5, 0.5]])) == pytest.approx([(0.1 + 3 * 0.9) / 4, 0.5])


def test_calibration_is_applied_when_asked(tmp_path, small_backbone):
    manifest = make_untrained_ensemble(tmp_path, architecture=Architecture(small_backbone))
    with pytest.raises(EnsembleError, match="no calibration is stored"):
        Ensemble.load(tmp_path, device="cpu", calibrated=True)
    prevalences = {"training_prevalence": 0.5, "fitted_prevalence": 0.5, "prevalence": 0.09}
    calibration = {"method": "temperature", "temperature": 2.0} | prevalences
    write_manifest(tmp_path, replace(manifest, calibration=calibration))
    by_member = np.array([[0.8]])
    assert Ensemble.load(tmp_path, device="cpu").vote(by_member) == pytest.approx([0.8])
    # Log-odds log 4, halved, plus the log-odds of 9 % over those of 50 %: odds of 2 times 9/91.
    odds = 2 * 0.09 / 0.91
    assert Ensemble.load(tmp_path, device="cpu", calibrated=True).vote(by_member) == pytest.approx([odds / (1 + odds)])


def test_no_nodules_need_no_network(ensemble):
    assert ensemble.member_probabilities(np.empty((0, 64, 64, 64), np.float32)).shape == (0, 2)


@pytest.mark.skipif(bf16_instructions() is None, reason="this CPU has no bf16 instructions: OpenVINO takes fp32")
def test_bf16_is_as_exact_as_the_manifest_says(tmp_path):
    recorded = make_untrained_ensemble(tmp_path, dtype=torch.float32, probes=2).max_deviation["bf16"]
    exact, fast = (Ensemble.load(tmp_path, device="cpu", precision=precision) for precision in ("fp32", "bf16"))
    patches = probe_patches()[-2:]  # those of the recorded figure
    difference = np.abs(fast.member_probabilities(patches) - exact.member_probabilities(patches)).max()
    # Recorded by rounding what each layer passes on; hardware rounds its sums here and there as well, in other places
    # with other numbers of threads. Of so few probes the largest error then differs by a few times; fp32's is 1e-6.
    assert recorded / 5 < difference < 2 * recorded
    assert difference < 0.005


def test_each_seed_is_loaded_once(folder, monkeypatch):
    loaded = []
    monkeypatch.setattr(openvino_backend, "read_weights", lambda f, m, **k: loaded.append(m.file) or read_weights(f, m))
    ensemble = Ensemble.load(folder, device="cpu", precision="fp32")
    for patch in (probe_patches()[:1], probe_patches()[1:2]):
        ensemble.member_probabilities(patch)
    assert sorted(loaded) == ["seed_1.safetensors", "seed_2.safetensors"]


def test_seeds_may_differ_in_architecture(tmp_path):
    architectures = [INCEPTION, Architecture("i3d_r50", head_widths=(8,))]
    members = [MemberWeights(f"seed_{k}", a, untrained_weights(a, k)) for k, a in enumerate(architectures)]
    write_ensemble(tmp_path, members, trained_on=None, licence=None, probes=shrunk_probe())
    ensemble = Ensemble.load(tmp_path, device="cpu", precision="fp32")
    patch = probe_patches()[5:6]
    by_member = ensemble.member_probabilities(patch)
    for k, architecture in enumerate(architectures):
        assert by_member[0, k] == pytest.approx(plain_probability(k, patch[0], architecture), abs=1e-5)


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """An ensemble whose members tell two attributes, none, and one of the two, and its members."""
    folder = tmp_path_factory.mktemp("telling")
    members = []
    for k, (names, weight) in enumerate(((("texture", "spiculation"), 1.0), ((), 7.0), (("spiculation",), 3.0))):
        architecture = replace(INCEPTION, attributes=names)
        # Patches as they are: a quarter of the work.
        weights = untrained_weights(architecture, k)
        members.append(MemberWeights(f"seed_{k}", architecture, weights, weight, upscales=False))
    write_ensemble(folder, members, trained_on=None, licence=None, probes=half_sized(probe_patches()[:1]))
    return folder, members


def plain_attributes(member: MemberWeights, patch: np.ndarray) -> dict[str, float]:
    """What a member's head says of a patch, 0…1, by the unfolded network's feature maps: 12.5 of the second's 50 mm."""
    model = create_model(member.architecture, with_decoder=False)
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in member.state_dict.items()})
    channels = torch.from_numpy(patch).expand(1, 3, -1, -1, -1)
    with torch.no_grad():
        _, fine, *_, coarse = model.eval().backbone.feature_maps(channels)
        wide = 8 * patch.shape[-1] // 64  # in eighths of a whole patch, of which the centre is two
        depth, height, width = (
            (side * (wide - 2) // (2 * wide), side * (wide + 2) // (2 * wide)) for side in fine.shape[2:]
        )
        centre = fine[0, :, slice(*depth), slice(*height), slice(*width)]
        features = torch.cat([coarse.mean((2, 3, 4))[0], centre.flatten(1).amax(1)])
        logits = model.attribute_head.weight @ features + model.attribute_head.bias
    return dict(zip(member.architecture.attributes, torch.sigmoid(logits).tolist(), strict=True))


@pytest.mark.parametrize("openvino", [True, False])
def test_attributes_are_voted_by_the_seeds_that_tell_them(telling, openvino, backends, monkeypatch):
    folder, members = telling
    if not openvino:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ensemble = Ensemble.load(folder, device="cpu", precision="fp32")
    assert backends[-1] is (OpenVinoMembers if openvino else TorchMembers)
    assert ensemble.manifest.attributes == ("spiculation", "texture")
    patches = probe_patches()[4:6] if openvino else half_sized(probe_patches()[4:6])
    by_member, attributes = ensemble.findings(patches)
    # In one pass with the probabilities, which are the same as without.
    np.testing.assert_array_equal(by_member, ensemble.member_probabilities(patches))
    assert attributes.shape == (2, 2)
    for patch, (spiculation, texture) in zip(patches, attributes, strict=True):
        both, only = (plain_attributes(members[k], patch) for k in (0, 2))
        assert spiculation == pytest.approx(1 + 4 * (both["spiculation"] + 3 * only["spiculation"]) / 4, abs=1e-4)
        assert texture == pytest.approx(1 + 4 * both["texture"], abs=1e-4)
    assert np.ptp(attributes, axis=0).min() > 1e-3


def test_without_attributes_nothing_is_told(ensemble):
    patches = probe_patches()[:1]
    by_member, attributes = ensemble.findings(patches)
    assert attributes.shape == (1, 0)
    np.testing.assert_array_equal(by_member, ensemble.member_probabilities(patches))


def test_attributes_reach_the_detailed_output_and_not_grand_challenges(telling, tmp_path):
    ct = make_ct()
    sitk.WriteImage(ct, str(tmp_path / "ct.mha"))
    (tmp_path / "points.csv").write_text("x,y,z\n" + ",".join(map(str, centre_of(ct))) + "\n")
    arguments = ["predict", str(tmp_path / "ct.mha"), "--points", str(tmp_path / "points.csv"), "--device", "cpu"]
    arguments += ["--resources", str(telling[0]), "--precision", "fp32", "--output"]
    assert main([*arguments, str(tmp_path / "p.json")]) == 0
    assert main([*arguments, str(tmp_path / "p.csv")]) == 0
    (point,) = json.loads((tmp_path / "p.json").read_text())["points"]
    ensemble = Ensemble.load(telling[0], device="cpu", precision="fp32")
    predictions = predict(tmp_path / "ct.mha", tmp_path / "points.csv", ensemble)
    assert point["attributes"] == dict(zip(("spiculation", "texture"), predictions[0].attributes, strict=True))
    assert all(1 < value < 5 for value in point["attributes"].values())
    with (tmp_path / "p.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {name: float(row[f"attribute_{name}"]) for name in point["attributes"]} == point["attributes"]
    assert list(multiple_points(predictions)["points"][0]) == ["point", "probability"]


def test_untrained_weights_carry_a_caveat(folder, caplog):
    ensemble = Ensemble.load(folder, device="cpu", precision="fp32")
    assert ensemble.caveat == "the weights are untrained: the numbers mean nothing"
    assert ensemble.caveat in caplog.text


def test_masks_need_a_decoder(folder):
    with pytest.raises(EnsembleError, match="no member has a decoder, so it cannot segment"):
        Ensemble.load(folder, device="cpu", masks=True)
    with pytest.raises(EnsembleError, match="the member has no decoder"):
        load_network(folder, read_manifest(folder).members[0], masks=True)


@pytest.mark.parametrize("openvino", [True, False])
def test_an_ensemble_that_was_loaded_without_decoders_says_so(
    tmp_path, small_backbone, openvino, backends, monkeypatch
):
    make_untrained_ensemble(tmp_path, architecture=Architecture(small_backbone, decoder_widths=(8, 8, 8, 8, 8)))
    if not openvino:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ensemble = Ensemble.load(tmp_path, device="cpu", precision="fp32")
    assert backends[-1] is (OpenVinoMembers if openvino else TorchMembers)
    for task in (ensemble.mask_probabilities, ensemble.findings_and_masks):
        with pytest.raises(EnsembleError, match=rf"loaded without decoders.*{tmp_path}: .*masks=True"):
            task(probe_patches()[:1])


@pytest.mark.parametrize("openvino", [True, False])
def test_masks_are_voted_by_the_seeds_that_have_a_decoder(tmp_path, openvino, backends, monkeypatch):
    if not openvino:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    architectures = [DECODING, INCEPTION, DECODING]
    members = [
        MemberWeights(f"seed_{k}", a, untrained_weights(a, k), weight, upscales=a is DECODING)
        for k, (a, weight) in enumerate(zip(architectures, (1.0, 7.0, 3.0), strict=True))
    ]
    write_ensemble(tmp_path, members, trained_on=None, licence=None, probes=half_sized(probe_patches()[:1]))
    ensemble = Ensemble.load(tmp_path, device="cpu", precision="fp32", masks=True)
    assert backends[-1] is (OpenVinoMembers if openvino else TorchMembers)
    patch = probe_patches()[5:6] if openvino else half_sized(probe_patches()[5:6])
    assert ensemble.member_probabilities(patch).shape == (1, 3)
    first, third = (plain_mask(untrained_weights(DECODING, k), DECODING, patch) for k in (0, 2))
    assert np.abs(first - third).max() > 0.05
    np.testing.assert_allclose(ensemble.mask_probabilities(patch), (first + 3 * third) / 4, atol=1e-4)


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory):
    """An ensemble of which one member tells an attribute and has a decoder, one neither, and one has a decoder."""
    folder = tmp_path_factory.mktemp("segmenting")
    members = []
    for k, architecture in enumerate((replace(DECODING, attributes=("texture",)), INCEPTION, DECODING)):
        members.append(MemberWeights(f"seed_{k}", architecture, untrained_weights(architecture, k), upscales=False))
    write_ensemble(folder, members, trained_on=None, licence=None, probes=half_sized(probe_patches()[:1]))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("openvino", [True, False])
def test_masks_come_with_the_findings_in_one_pass(segmenting, openvino, precision, monkeypatch):
    if not openvino:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    patches = probe_patches()[4:6] if openvino else half_sized(probe_patches()[4:6])
    plain, whole = (
        Ensemble.load(segmenting, device="cpu", precision=precision, masks=masks) for masks in (False, True)
    )
    expected = plain.findings(patches), whole.mask_probabilities(patches)
    backbone = (openvino_runtime.openvino.InferRequest, "infer") if openvino else (TorchBackbone, "feature_maps")
    passes = count_passes(*backbone, monkeypatch)
    *found, masks = whole.findings_and_masks(patches)
    assert len(passes) == (6 if openvino else 3)  # PyTorch takes both nodules at once
    for value, without_masks in zip(found, expected[0], strict=True):
        np.testing.assert_array_equal(value, without_masks)
    np.testing.assert_array_equal(masks, expected[1])
    assert np.ptp(masks, axis=0).max() > 0.01
    assert [part.shape for part in whole.findings_and_masks(patches[:0])] == [(0, 3), (0, 1), (0, *patches.shape[1:])]


def count_passes(kind, name, monkeypatch) -> list[object]:
    """A list that grows with each call of a method."""
    passes, run = [], getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *given: passes.append(self) or run(self, *given))
    return passes


def test_each_network_is_compiled_once(segmenting, monkeypatch):
    made, graph = [], openvino_backend.network_graph
    monkeypatch.setattr(openvino_backend, "network_graph", lambda *a, **k: made.append(k["masks"]) or graph(*a, **k))
    Ensemble.load(segmenting, device="cpu", precision="fp32", masks=True)
    assert sorted(made) == [False, True, True]


def test_the_decoder_is_built_only_for_masks(tmp_path):
    architecture = Architecture("inception_i3d", decoder_widths=(32, 32, 32, 16, 16))
    make_untrained_ensemble(tmp_path, architecture=architecture)
    member = read_manifest(tmp_path).members[0]
    assert not hasattr(load_network(tmp_path, member).network, "aux_model")
    network = load_network(tmp_path, member, masks=True)
    patch = half_sized(probe_patches()[3:4])
    mask = TorchMembers([network], "cpu", "fp32").mask_probabilities(patch)[:, 0]
    assert mask.shape == (1, 32, 32, 32)
    stored = safetensors.torch.load_file(tmp_path / member.file)
    np.testing.assert_allclose(mask, plain_mask(stored, architecture, patch), atol=1e-4)


def test_openvino_segments_with_an_i3d_r50(tmp_path):
    architecture = Architecture("i3d_r50", decoder_widths=(8, 8, 8, 64, 8))  # the fourth is as wide as its feature map
    weights = untrained_weights(architecture, 1)
    seed = MemberWeights("seed_1", architecture, weights)
    write_ensemble(tmp_path, [seed], trained_on=None, licence=None, probes=shrunk_probe())
    mask = Ensemble.load(tmp_path, device="cpu", precision="fp32", masks=True).mask_probabilities(probe_patches()[5:6])
    np.testing.assert_allclose(mask, plain_mask(weights, architecture, probe_patches()[5:6]), atol=1e-4)


def rewritten(folder, change):
    """Change the first seed's tensors and make the manifest's checksum fit again."""
    path = folder / "seed_1.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    content = safetensors.torch.save(tensors)
    path.write_bytes(content)
    manifest = json.loads((folder / "ensemble.json").read_text())
    manifest["members"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "ensemble.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("classifier_head.2.bias"),
            r"1 tensor missing \(classifier_head\.2\.bias\)",
        ),
        (lambda t: t.update(extra=torch.zeros(1)), r"1 tensor left over \(extra\)"),
        (lambda t: t.update({"classifier_head.2.bias": torch.zeros(2)}), "1 tensor of another shape"),
        (lambda t: t.update({"classifier_head.2.bias": torch.tensor([torch.nan])}), "NaN or infinite weights"),
    ],
)
def test_tensors_that_are_not_the_architectures_are_refused(tmp_path, small_backbone, change, message):
    make_untrained_ensemble(tmp_path, architecture=Architecture(small_backbone))
    rewritten(tmp_path, change)
    with pytest.raises(EnsembleError, match=message):
        Ensemble.load(tmp_path, device="cpu")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path, small_backbone):
    make_untrained_ensemble(tmp_path, architecture=Architecture(small_backbone))
    (tmp_path / "seed_1.safetensors").write_bytes(b"junk")
    manifest = json.loads((tmp_path / "ensemble.json").read_text())
    manifest["members"][0]["sha256"] = hashlib.sha256(b"junk").hexdigest()
    (tmp_path / "ensemble.json").write_text(json.dumps(manifest))
    with pytest.raises(EnsembleError, match="not a safetensors file"):
        Ensemble.load(tmp_path, device="cpu")


def test_published_decoder_widths_are_the_contracts():
    assert published_widths(InceptionI3d().channels) == (832, 480, 192, 64, 64)
