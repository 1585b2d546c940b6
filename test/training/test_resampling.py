from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import centre_of, make_ct, rotation
from scipy.spatial.transform import Rotation

from nodulemc.ct.volume import Volume
from nodulemc.data.block_store import NoduleBlock
from nodulemc.patch import extract_patch
from nodulemc.training.augmentation import IDENTITY, Augmentation, draw_augmentation
from nodulemc.training.config import AugmentationConfig
from nodulemc.training.dataset import Batch, NoduleDataset, SampleRef, collate
from nodulemc.training.resampling import resample, sampling_affine

DIRECTIONS = {
    "axial": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float),
    "oblique": rotation(-25, 14, 40) @ np.diag([-1.0, 1.0, -1.0]),
}


def block_of(image: sitk.Image, point, mask: np.ndarray | None = None, start=(0, 0, 0), stop=None) -> NoduleBlock:
    """The part of a CT from index ``start`` to ``stop`` (x, y, z) as a block."""
    stop = image.GetSize() if stop is None else stop
    box = tuple(slice(a, b) for a, b in zip(start[::-1], stop[::-1], strict=True))
    voxels = sitk.GetArrayFromImage(image)[box]
    return NoduleBlock(
        voxels=voxels,
        mask=np.zeros(voxels.shape, np.uint8) if mask is None else mask[box],
        origin=np.array(image.TransformIndexToPhysicalPoint([int(k) for k in start])),
        matrix=np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing()),
        point=np.array(point),
        scan_bounds=(-0.5 - np.array(start), np.array(image.GetSize()) - np.array(start) - 0.5),
        row={},
    )


def resample_all(blocks, augmentations) -> tuple[np.ndarray, np.ndarray]:
    """Resample whole blocks, without the dataset's cutting."""
    samples = []
    for block, augmentation in zip(blocks, augmentations, strict=True):
        scan_bounds = np.array([side[::-1] for side in block.scan_bounds])
        samples.append(
            Batch(
                torch.from_numpy(block.voxels.flatten()),
                torch.from_numpy(block.mask.flatten()),
                (block.voxels.shape,),
                torch.from_numpy(sampling_affine(block, augmentation))[None],
                torch.from_numpy(scan_bounds)[None],
                torch.zeros(1),
                torch.zeros(1, 0),
                torch.zeros(1, dtype=torch.int64),
            )
        )
    images, masks = collate(samples).resample()
    return images[:, 0].numpy(), masks.numpy()


class ListStore(list):
    """Blocks in a list, as a store."""


def test_a_smaller_patch_is_the_centre_of_the_whole_one():
    image = make_ct(direction=DIRECTIONS["oblique"])
    array = sitk.GetArrayFromImage(image)
    block = block_of(image, np.array(centre_of(image)) + (1.3, -2.1, 0.4), (array > 0).astype(np.uint8))
    batch = NoduleDataset([block], [1], AugmentationConfig(), 3)[SampleRef(0, 0, 0)]
    whole, central = batch.resample(), batch.resample(32)
    for large, small in zip(whole, central, strict=True):
        assert small.shape[-3:] == (32, 32, 32)
        torch.testing.assert_close(small, large[..., 16:48, 16:48, 16:48], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_without_augmentation_it_is_what_inference_sees(name):
    # Different shapes in one batch: inside the scan, at its corner, and thin.
    images = [
        make_ct(direction=DIRECTIONS[name]),
        make_ct(size=(60, 75, 30), spacing=(0.9, 0.6, 2.5), direction=DIRECTIONS[name], seed=1),
    ]
    points = [np.array(centre_of(images[0])) + (1.3, -2.1, 0.4), images[1].TransformIndexToPhysicalPoint((3, 70, 25))]
    blocks = [block_of(image, point) for image, point in zip(images, points, strict=True)]
    found, _ = resample_all(blocks, [IDENTITY] * 2)
    expected = [extract_patch(Volume(i, Path("ct")), p) for i, p in zip(images, points, strict=True)]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    # Samples within rounding of a border voxel's face may fall on either side of it.
    assert np.isclose(found[1], expected[1], atol=1e-5).mean() > 0.999
    assert (found[1] == 0).mean() > 0.3
    # The dataset cuts before it samples.
    dataset = NoduleDataset(ListStore(blocks), [0, 1], None, seed=0)
    cut, _ = collate([dataset[SampleRef(k, 0, k)] for k in range(2)]).resample()
    np.testing.assert_allclose(cut[0, 0], found[0], atol=1e-5)
    assert np.isclose(cut[1, 0], found[1], atol=1e-5).mean() > 0.999


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_block_gives_what_the_whole_scan_gives_and_the_dataset_cuts_no_more_than_it_may(name):
    image = make_ct(size=(170, 160, 90), direction=DIRECTIONS[name])
    point = np.array(centre_of(image)) + (5.2, -3.4, 1.9)
    mask = np.random.default_rng(0).integers(0, 2, image.GetSize()[::-1], np.uint8)
    whole, part = block_of(image, point, mask), block_of(image, point, mask, (12, 9, 5), (168, 157, 87))
    config = AugmentationConfig(flip_probability=1.0)
    store = ListStore([whole, part])
    dataset = NoduleDataset(store, [0, 1], config, seed=3)
    for place in range(3):
        batch = collate([dataset[SampleRef(0, 2, place)], dataset[SampleRef(1, 2, place)]])
        assert np.prod(batch.sizes[0]) < 0.8 * whole.voxels.size
        images, masks = batch.resample()
        np.testing.assert_allclose(images[0], images[1], atol=2e-5)
        random = np.random.default_rng([3, 1, 2, place])
        direct, direct_masks = resample_all([whole], [draw_augmentation(config, random)])
        np.testing.assert_allclose(images[0, 0], direct[0], atol=2e-5)
        assert (masks[0].numpy() == direct_masks[0]).mean() > 0.9999
        assert 0.3 < masks.mean() < 0.7


def test_rotation_and_shift_sample_where_they_should():
    # Trilinear interpolation reproduces a linear field exactly, so the sampled world points show in the values.
    image = make_ct(size=(150, 140, 110), spacing=(0.7, 0.8, 1.0), direction=DIRECTIONS["oblique"])
    z, y, x = np.indices(image.GetSize()[::-1])
    ramp = sitk.GetImageFromArray((-800 + 3 * x + 2 * y + 1 * z).astype(np.int16))
    ramp.CopyInformation(image)
    matrix = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    gradient = np.array([3, 2, 1]) @ np.linalg.inv(matrix)
    point = np.array(centre_of(image))
    angles, shift = (17.0, -11.0, 6.0), (1.1, -0.7, 1.9)
    found, _ = resample_all([block_of(ramp, point)], [Augmentation(angles, shift)])
    offsets = (np.arange(64) - 31.5) * 50 / 64
    grid = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1)  # z, y, x
    # scipy's first, second and third axis are the array's: z, y, x. Capitals: R0 · R1 · R2.
    turn = Rotation.from_euler("XYZ", angles, degrees=True).as_matrix()
    world = point + ((grid @ turn.T) + shift)[..., ::-1]
    expected = -800 + (world - image.GetOrigin()) @ gradient
    np.testing.assert_allclose(found[0] * 1400 - 1000, expected, atol=0.05)


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("transposed", [False, True])
def test_flips_and_transposition_are_those_of_the_patch(flips, transposed):
    image = make_ct(size=(110, 110, 60))
    block = block_of(image, np.array(centre_of(image)) + 0.3)
    found, _ = resample_all([block], [Augmentation(flips=flips, transposed=transposed)])
    plain, _ = resample_all([block], [IDENTITY])
    expected = np.flip(plain[0], [axis for axis, flip in zip((1, 2), flips, strict=True) if flip])
    if transposed:
        # Flipping comes before the exchange of axes, seen from the output.
        expected = np.flip(
            plain[0].transpose(0, 2, 1), [axis for axis, flip in zip((2, 1), flips, strict=True) if flip]
        )
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_mask_moves_with_the_image():
    image = make_ct(size=(150, 150, 70), spacing=(0.65, 0.65, 1.25))
    shape = image.GetSize()[::-1]
    index = np.moveaxis(np.indices(shape), 0, -1)[..., ::-1] * image.GetSpacing()
    centre = np.array(image.GetSize()) * image.GetSpacing() / 2
    mask = (np.linalg.norm(index - centre - (6, -9, 4), axis=-1) < 7).astype(np.uint8)
    bright = sitk.GetImageFromArray(np.where(mask, 400, -1000).astype(np.int16))
    bright.CopyInformation(image)
    block = block_of(bright, np.array(image.GetOrigin()) + centre, mask)
    augmentation = Augmentation((18.0, -20.0, 9.0), (1.0, 2.0, -1.0), (True, False), True)
    images, masks = resample_all([block], [augmentation])
    np.testing.assert_array_equal(masks[0], images[0] > 0.5)
    volume = masks.sum() * (50 / 64) ** 3
    assert volume == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.02)


def test_air_lies_outside_the_scan_only():
    # A scan of 300 HU around a block whose extent is not known, and around one at the scan's corner.
    voxels = np.full((20, 20, 20), 300, np.int16)
    geometry = {"origin": np.zeros(3), "matrix": np.eye(3) * 2, "point": np.zeros(3)}
    boxes = [(np.full(3, -np.inf), np.full(3, np.inf)), (np.full(3, -0.5), np.full(3, 19.5))]
    mask = np.ones_like(voxels, np.uint8)
    unknown, corner = (NoduleBlock(voxels, mask, **geometry, scan_bounds=box, row={}) for box in boxes)
    images, masks = resample_all([unknown, corner], [IDENTITY] * 2)
    np.testing.assert_allclose(images[0], 1300 / 1400, atol=1e-6)
    positions = (np.arange(64) - 31.5) * 50 / 64
    inside = positions >= -1  # half a voxel of 2 mm
    expected = inside[:, None, None] & inside[:, None] & inside
    np.testing.assert_allclose(images[1], expected * 1300 / 1400, atol=1e-6)
    np.testing.assert_array_equal(masks[1], expected)


def test_padding_does_not_leak():
    one = torch.full((1, 4, 4, 4), 100, dtype=torch.int16)
    padded = torch.full((1, 9, 8, 7), 3000, dtype=torch.int16)
    padded[:, :4, :4, :4] = one
    affine = torch.tensor([[[0.1, 0, 0, 2], [0, 0.1, 0, 2], [0, 0, 0.1, 2.0]]], dtype=torch.float64)
    scan_bounds = torch.tensor([[[-0.5] * 3, [3.5] * 3]], dtype=torch.float64)
    results = [
        resample(v, torch.zeros_like(v, dtype=torch.uint8), affine, torch.tensor([[4, 4, 4]]), scan_bounds)[0]
        for v in (one, padded)
    ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)
