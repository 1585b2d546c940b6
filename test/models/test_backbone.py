"""A third backbone costs one module, ``small_i3d``: everything else is made of it."""

import numpy as np
import pytest
import torch
from ensembles import shrunk_probe
from models.small_i3d import SmallI3d
from torch import Tensor
from torch.nn import functional as F

from nodulemc.ensemble.backends.openvino_backend import OpenVinoMembers
from nodulemc.ensemble.backends.openvino_graph import network_graph
from nodulemc.ensemble.backends.torch_backend import load_members
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import read_manifest
from nodulemc.ensemble.synthetic_patches import probe_patches
from nodulemc.ensemble.writer import MemberWeights, write_ensemble
from nodulemc.errors import EnsembleError
from nodulemc.models.architecture import BACKBONES, Architecture
from nodulemc.models.backbone import centred, same
from nodulemc.models.kinetics import fetch_kinetics, load_kinetics
from nodulemc.models.multitask import MultiTaskI3d, create_model
from nodulemc.models.tensor_shapes import tensor_shapes
from nodulemc.models.upscaled_stem import PatchNetwork
from nodulemc.training.config import ModelConfig, TrainingConfig
from nodulemc.training.devices import create_accelerator
from nodulemc.training.step import TrainingStep


@pytest.fixture(scope="module", params=["global", "centre"])
def architecture(small_backbone, request):
    return Architecture(small_backbone, decoder_widths=(13, 8, 10, 7, 4), pooling=request.param)


def randomised(model: MultiTaskI3d) -> MultiTaskI3d:
    """BatchNorm that does something, and convolutions that keep activations of order one."""
    generator = torch.Generator().manual_seed(4)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            shift = value.ndim > 1 or name.endswith(("bias", "mean"))
            bound = 0.3 if value.ndim == 1 else (6 / value[0].numel()) ** 0.5  # He-uniform
            low, high = (-bound, bound) if shift else (0.5, 1.5)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return model.eval()


@pytest.fixture(scope="module")
def model(architecture):
    return randomised(create_model(architecture, with_decoder=True))


@pytest.fixture(scope="module")
def folder(architecture, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble")
    seeds = [MemberWeights(f"seed_{k}", architecture, model.state_dict(), upscales=k == 1) for k in (1, 2)]
    write_ensemble(path, seeds, trained_on=None, licence=None, probes=shrunk_probe())
    return path


def plain_feature_maps(tensors: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The backbone once more, as functions of its tensors, padding explicit."""

    def conv_bn(x, conv, norm, pads):
        x = F.conv3d(F.pad(x, pads), tensors[f"backbone.{conv}.weight"])
        parts = [tensors[f"backbone.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-5)

    maps = [F.relu(conv_bn(x, "conv1", "bn1", (2, 2, 2, 2, 1, 1)))]
    for k in range(1, 5):
        x = F.max_pool3d(maps[-1], 2)
        x = torch.cat([x, F.relu(conv_bn(x, f"layer{k}.wide.conv3d", f"layer{k}.wide.batch3d", (1, 2, 1, 2, 0, 0)))], 1)
        maps.append(F.relu(x + conv_bn(x, f"layer{k}.conv2", f"layer{k}.bn2", (0, 0, 0, 0, 1, 1))))
    return maps


def test_pytorch_computes_what_is_described(model):
    x = torch.rand(2, 3, 16, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.backbone.feature_maps(x)
        expected = plain_feature_maps(model.state_dict(), x)
    assert [tuple(value.shape) for value in found] == [(2, 4 + 3 * k, 16 >> k, 32 >> k, 48 >> k) for k in range(5)]
    assert model.backbone.channels == (4, 7, 10, 13, 16)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_the_table_names_what_pytorch_has(architecture, model):
    stated = {n: tuple(v.shape) for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert tensor_shapes(architecture, with_decoder=True) == stated


def test_the_fine_stages_are_what_the_three_finest_maps_are_made_by(model, small_backbone):
    own = {f"layer{k}.{name}" for k in (1, 2) for name in ("wide.conv3d", "wide.batch3d", "conv2", "bn2")}
    assert BACKBONES[small_backbone].fine_stages == {"conv1", "bn1"} | own
    assert {*model.backbone.fine_stages} == {model.backbone.get_submodule(name) for name in {"conv1", "bn1"} | own}


def test_both_backends_give_the_plain_networks_numbers(folder, model):
    """Of a member that is fed the patch upscaled and of one that is fed it as it is."""
    members, patches = read_manifest(folder).members, probe_patches()[5:6]
    fed = [torch.from_numpy(patches.repeat(2, axis=2).repeat(2, axis=3)), torch.from_numpy(patches)]
    with torch.no_grad():
        logits, masks = zip(*(model.forward_multitask(x[:, None]) for x in fed), strict=True)
    assert not torch.allclose(*logits, atol=1e-3)
    assert all(torch.sigmoid(mask).std() > 0.04 for mask in masks)
    for seeds in (
        OpenVinoMembers(folder, members, "fp32", masks=True),
        load_members(folder, members, "cpu", "fp32", masks=True),
    ):
        findings, probabilities = seeds.member_findings_and_masks(patches, ())
        np.testing.assert_allclose(findings[0, :, 0], torch.sigmoid(torch.cat(logits)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(probabilities[0], torch.sigmoid(torch.cat(masks)), rtol=0, atol=1e-4)


def test_stages_that_no_head_reads_are_computed_for_masks_alone(architecture, model):
    called = []
    norms = [name for name, module in model.backbone.named_modules() if isinstance(module, torch.nn.BatchNorm3d)]
    hooks = [
        model.backbone.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in norms
    ]
    network, patch = PatchNetwork(model), torch.from_numpy(probe_patches()[:1, None])
    with torch.no_grad():
        network.classify(patch)
        of_head = [*called]
        network(patch)
    for hook in hooks:
        hook.remove()
    needed = norms[: 1 + 2 * 2] if architecture.pooling == "centre" else norms
    assert sorted(of_head) == sorted(needed)
    assert sorted(called[len(of_head) :]) == sorted(norms)
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    counts = [
        sum(
            node.get_type_name() == "Convolution"
            for node in network_graph(architecture, tensors, masks=masks).get_ops()
        )
        for masks in (False, True)
    ]
    of_decoder = 5 + 3 + 1  # blocks, projections where widths differ, the last layer
    assert counts == [len(needed), len(norms) + of_decoder]


def test_an_ensemble_of_it_is_loaded_as_any(folder):
    by_member = Ensemble.load(folder, device="cpu").member_probabilities(probe_patches()[:1])
    assert by_member.shape == (1, 2)
    assert 0 < by_member.min() < by_member.max() < 1


def test_tensors_that_are_not_its_are_refused(architecture, model, tmp_path):
    tensors = {name: value for name, value in model.state_dict().items() if name != "backbone.layer3.bn2.bias"}
    with pytest.raises(EnsembleError, match=r"1 tensor missing \(backbone\.layer3\.bn2\.bias\)"):
        write_ensemble(tmp_path, [MemberWeights("seed_1", architecture, tensors)], trained_on=None, licence=None)


def test_it_learns(architecture):
    torch.manual_seed(0)
    network = PatchNetwork(create_model(architecture, with_decoder=True))
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert not before["network.backbone.layer1.bn2.weight"].any()
    step = TrainingStep(network, TrainingConfig(model=ModelConfig(kinetics=None)), create_accelerator("fp32"))
    step.prepare_to_train()
    images, labels = torch.rand(2, 1, 16, 16, 16), torch.tensor([0.0, 1.0])
    masks = (images[:, 0] > 0.5).float()
    losses = [step(images, masks, labels, 1e-2)[0].item() for _ in range(8)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_there_are_no_kinetics_weights_of_it(model, tmp_path):
    refusals = (
        lambda: fetch_kinetics(SmallI3d.name, tmp_path),
        lambda: load_kinetics(model, SmallI3d.name, tmp_path / "x"),
    )
    for refused in refusals:
        with pytest.raises(EnsembleError, match=r"no Kinetics-400 weights are published: backbone small_i3d: "):
            refused()


@pytest.mark.parametrize(
    ("window", "near", "far"),
    [
        (same(7, 2), (2, 2, 2), (3, 3, 3)),
        (same((1, 3, 3), (1, 2, 2)), (0, 0, 0), (0, 1, 1)),
        (same(3), (1, 1, 1), (1, 1, 1)),
        (same(1, 2), (0, 0, 0), (0, 0, 0)),
        (centred((5, 7, 1), (1, 2, 2)), (2, 3, 0), (2, 3, 0)),
    ],
)
def test_paddings_are_tensorflows_and_pytorchs(window, near, far):
    assert (window.near, window.far) == (near, far)
