import pytest
import torch
from models.reference_files import PUBLISHED, reference_state
from models.reference_network import reference_feature_maps, reference_logit, reference_mask

from nodulemc.models.architecture import Architecture
from nodulemc.models.folding import fold_batch_norm, fold_input_channels
from nodulemc.models.inception_i3d import InceptionI3d
from nodulemc.models.multitask import create_model
from nodulemc.models.torch_backbone import TorchBackbone


@pytest.fixture(scope="module")
def state():
    return reference_state(7, decoder=True)


@pytest.fixture
def model(state):
    model = create_model(PUBLISHED, with_decoder=True)
    model.load_state_dict(state)
    return model.eval()


def test_parameter_counts_are_the_contracts():
    with torch.device("meta"):
        model = create_model(PUBLISHED, with_decoder=True)
    # Counted by hand from the paper's table: 12.3 M; 36.7 M for the decoder.
    assert sum(p.numel() for p in model.backbone.parameters()) == 12_287_264
    assert sum(p.numel() for p in model.aux_model.parameters()) == 36_719_873


def test_feature_maps_have_the_contracts_shapes():
    with torch.device("meta"):
        maps = TorchBackbone(InceptionI3d()).feature_maps(torch.empty(1, 3, 64, 128, 128))
    assert [tuple(found.shape[1:]) for found in maps] == [
        (64, 32, 64, 64),
        (192, 32, 32, 32),
        (480, 32, 16, 16),
        (832, 16, 8, 8),
        (1024, 8, 4, 4),
    ]


@pytest.mark.heavy
def test_every_feature_map_equals_the_references(model, state):
    x = torch.rand(2, 3, 16, 32, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, theirs in zip(model.backbone.feature_maps(x), reference_feature_maps(state, x), strict=True):
            assert theirs.std() > 0.1
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.heavy
def test_full_size_logit_and_mask_equal_the_references(model, state):
    x = torch.rand(1, 1, 64, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logit, mask = model.forward_multitask(x)
        maps = reference_feature_maps(state, x.expand(-1, 3, -1, -1, -1))
        torch.testing.assert_close(logit, reference_logit(state, maps), atol=1e-4, rtol=1e-4)
        expected = reference_mask(state, maps, (64, 64, 64))
        assert mask.shape == (1, 64, 64, 64)
        assert expected.std() > 0.1
        torch.testing.assert_close(mask, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.heavy
def test_folding_changes_nothing_but_the_work(model):
    x = torch.rand(1, 1, 16, 32, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = model.forward_multitask(x)
        torch.testing.assert_close(model(x), before[0])
        fold_input_channels(fold_batch_norm(model))
        assert model.backbone.stem.weight.shape == (64, 1, 7, 7, 7)
        assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in model.modules())
        after = model.forward_multitask(x)
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after[1], before[1], atol=1e-4, rtol=1e-4)


def test_a_narrow_decoder_projects_the_feature_maps_it_meets():
    with torch.device("meta"):
        model = create_model(Architecture("inception_i3d", decoder_widths=(64, 64, 48, 32, 16)), with_decoder=True)
        logits, masks = model.forward_multitask(torch.empty(2, 1, 64, 128, 128))
    assert logits.shape == (2,)
    assert masks.shape == (2, 64, 64, 64)
    projected = {
        f"aux_model.project_{k}.weight": shape for k, shape in enumerate([(64, 832), (64, 480), (48, 192), (32, 64)], 1)
    }
    named = {name: tuple(p.shape[:2]) for name, p in model.named_parameters() if "project" in name and "weight" in name}
    assert named == projected


def test_hidden_head_widths_build_an_mlp():
    model = create_model(Architecture("inception_i3d", head_widths=(256, 32)), with_decoder=False)
    linear = [m for m in model.classifier_head if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(1024, 256), (256, 32), (32, 1)]


def test_decoder_initialisation_is_he_normal():
    torch.manual_seed(0)
    weight = create_model(PUBLISHED, with_decoder=True).aux_model.block1.conv3d.weight
    assert weight.std().item() == pytest.approx((2 / (832 * 27)) ** 0.5, rel=0.01)
