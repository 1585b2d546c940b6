import pytest
import torch

pytest.importorskip("torchvision", reason="pytorchvideo's models need torchvision")
from pytorchvideo.models.hub import i3d_r50

from nodulemc.models.architecture import Architecture
from nodulemc.models.folding import fold_batch_norm, fold_input_channels
from nodulemc.models.multitask import create_model

R50 = Architecture("i3d_r50", decoder_widths=(64, 64, 32, 32, 16))


def randomise_norms(model):
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) * 0.2 - 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)


@pytest.mark.heavy
def test_feature_maps_are_pytorchvideos_activations():
    torch.manual_seed(0)
    whole = i3d_r50(pretrained=False).eval()
    randomise_norms(whole)
    model = create_model(R50, with_decoder=False).eval()
    model.backbone.load_state_dict({n: v for n, v in whole.state_dict().items() if not n.startswith("blocks.6.")})
    seen = []
    for k in (0, 1, 3, 4, 5):
        whole.blocks[k].register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.rand(1, 3, 8, 224, 224)
    with torch.no_grad():
        whole(x)
        maps = model.backbone.feature_maps(x)
    assert len(seen) == len(maps) == 5
    for ours, theirs in zip(maps, seen, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shapes_and_size_are_the_contracts():
    with torch.device("meta"):
        model = create_model(R50, with_decoder=True)
        maps = model.backbone.feature_maps(torch.empty(1, 3, 64, 128, 128))
        logits, masks = model.forward_multitask(torch.empty(1, 1, 64, 128, 128))
    assert [tuple(found.shape[1:]) for found in maps] == [
        (64, 64, 32, 32),
        (256, 64, 32, 32),
        (512, 32, 16, 16),
        (1024, 32, 8, 8),
        (2048, 32, 4, 4),
    ]
    assert sum(p.numel() for p in model.backbone.parameters()) == 27_223_872
    assert logits.shape == (1,)
    assert masks.shape == (1, 64, 64, 64)


@pytest.mark.heavy
def test_folding_changes_nothing_but_the_work():
    torch.manual_seed(0)
    model = create_model(R50, with_decoder=False).eval()
    randomise_norms(model)
    x = torch.rand(1, 1, 8, 64, 64)
    with torch.no_grad():
        before = model.backbone.feature_maps(x.expand(-1, 3, -1, -1, -1))[-1]
        fold_input_channels(fold_batch_norm(model))
        after = model.backbone.feature_maps(x)[-1]
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in model.modules())
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_it_starts_as_pytorchvideos():
    """He-normal convolutions, and residual blocks that start as their shortcuts."""
    torch.manual_seed(0)
    ours = create_model(R50, with_decoder=False).backbone.state_dict()
    theirs = {n: v for n, v in i3d_r50(pretrained=False).state_dict().items() if not n.startswith("blocks.6.")}
    assert list(ours) == list(theirs)  # Adam's state goes by the parameters' order
    for name, value in theirs.items():
        if value.ndim == 5:
            assert ours[name].std().item() == pytest.approx(value.std().item(), rel=0.05), name
        else:
            assert torch.equal(ours[name], value), name
