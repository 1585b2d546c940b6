import numpy as np
import pytest
import torch

from nodulemc.models.pooling import all_features, pooled_features

# Inception-I3D's maps of a whole patch: their numbers of channels here, and their sides.
SHAPES = [(2, 32, 64, 64), (3, 32, 32, 32), (4, 32, 16, 16), (5, 16, 8, 8), (6, 8, 4, 4)]


def random_maps(patch_sides=1.0):
    generator = torch.Generator().manual_seed(1)
    shapes = [(channels, *(round(side * patch_sides) for side in sides)) for channels, *sides in SHAPES]
    return [torch.randn(2, *shape, generator=generator) for shape in shapes]


def test_pooling_the_centre_reads_the_middle_of_a_whole_patch():
    maps = random_maps()
    first, second, third = (x.numpy() for x in maps[:3])
    boxes = [
        first[:, :, 12:20, 24:40, 24:40],
        first[:, :, 14:18, 28:36, 28:36],
        second[:, :, 12:20, 12:20, 12:20],
        second[:, :, 14:18, 14:18, 14:18],
        third[:, :, 12:20, 6:10, 6:10],
        third[:, :, 14:18, 7:9, 7:9],
    ]
    axes = (2, 3, 4)
    expected = np.concatenate([value for box in boxes for value in (box.mean(axes), box.max(axes))], axis=1)
    assert expected.shape == (2, 4 * (2 + 3 + 4))
    np.testing.assert_allclose(pooled_features(maps, "centre").numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["global", "centre"])
def test_a_central_patch_gives_the_same_features_where_its_maps_are_a_whole_patchs_middle(pooling):
    whole = random_maps()
    middle = [x[:, :, d // 4 : 3 * d // 4, h // 4 : 3 * h // 4, w // 4 : 3 * w // 4]
              for x in whole for d, h, w in [x.shape[2:]]]  # fmt: skip
    found = pooled_features(middle, pooling, 0.5)
    if pooling == "centre":
        torch.testing.assert_close(found, pooled_features(whole, pooling))
    else:
        torch.testing.assert_close(found, middle[-1].mean((2, 3, 4)))
    own = pooled_features(whole, pooling).shape[1]
    assert torch.equal(all_features(middle, pooling, 0.5)[:, :own], found)
    torch.testing.assert_close(all_features(middle, pooling, 0.5)[:, own:], all_features(whole, pooling)[:, own:])


def test_a_patch_smaller_than_the_part_is_pooled_whole():
    maps = random_maps(0.25)
    found = pooled_features(maps, "centre", 0.25)
    torch.testing.assert_close(found[:, :2], maps[0].mean((2, 3, 4)))
    torch.testing.assert_close(found[:, 2:4], maps[0].amax((2, 3, 4)))


def test_overlapping_windows_count_the_ends_of_a_side_half():
    maps = random_maps()
    ends = [np.ones(side) for side in maps[-1].shape[2:]]
    for end in ends:
        end[[0, -1]] = 0.5
    weights = np.einsum("i,j,k", *ends)
    expected = np.average(maps[-1].numpy().reshape(2, 6, -1), axis=2, weights=weights.ravel())
    np.testing.assert_allclose(pooled_features(maps, "windows_2x2x2").numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["global", "centre"])
def test_attributes_are_told_from_the_second_maps_maxima_too(pooling):
    maps = random_maps()
    maxima = maps[1][:, :, 12:20, 12:20, 12:20].amax((2, 3, 4))
    found = all_features(maps, pooling)
    assert found.shape[1] == {"global": 6 + 3, "centre": 36}[pooling]
    torch.testing.assert_close(found[:, 6:] if pooling == "global" else found[:, 11:14], maxima)
