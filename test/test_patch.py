from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import centre_of, make_ct, rotation
from scipy.ndimage import map_coordinates

from nodulemc.ct.volume import Volume
from nodulemc.errors import ImageError
from nodulemc.patch import UPSCALED, extract_patch

FLIPPED = np.diag([-1.0, 1.0, -1.0])
REFLECTED = np.diag([1.0, 1.0, -1.0])
PERMUTED = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)
DIRECTIONS = {
    "axial": np.eye(3),
    "flipped": FLIPPED,
    "reflected": REFLECTED,
    "sagittal": PERMUTED,
    "oblique 12 degrees": rotation(12, 0, 0),
    "oblique about all axes": rotation(-25, 14, 40) @ FLIPPED,
}


def sample_by_hand(image: sitk.Image, point) -> np.ndarray:
    """The patch in float64 from the definition, with scipy: 64 samples 50/64 mm apart about the point."""
    offsets = (np.arange(64) - 31.5) * (50 / 64)
    z, y, x = np.meshgrid(offsets + point[2], offsets + point[1], offsets + point[0], indexing="ij")
    world = np.stack([x, y, z], axis=-1)
    matrix = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    index = (world - image.GetOrigin()) @ np.linalg.inv(matrix).T
    inside = ((index >= -0.5) & (index <= np.array(image.GetSize()) - 0.5)).all(axis=-1)
    # Between a border voxel's centre and its outer face the border voxel's value holds.
    index = np.clip(index, 0, np.array(image.GetSize()) - 1)
    voxels = sitk.GetArrayFromImage(image).astype(np.float64)
    hu = map_coordinates(voxels, [index[..., 2], index[..., 1], index[..., 0]], order=1, mode="nearest")
    return np.clip((np.where(inside, hu, -1000) + 1000) / 1400, 0, 1)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_patch_equals_direct_sampling_and_simpleitk(name):
    image = make_ct(direction=DIRECTIONS[name])
    point = np.array(centre_of(image)) + (1.3, -2.1, 0.4)
    patch = extract_patch(Volume(image, Path("ct")), point)
    assert patch.dtype == np.float32
    assert patch.shape == (64, 64, 64)
    np.testing.assert_allclose(patch, sample_by_hand(image, point), atol=1e-5)
    grid = sitk.Image(64, 64, 64, sitk.sitkFloat64)
    grid.SetSpacing([50 / 64] * 3)
    grid.SetOrigin((point - 31.5 * 50 / 64).tolist())
    whole = sitk.Resample(sitk.Cast(image, sitk.sitkFloat64), grid, sitk.Transform(), sitk.sitkLinear, -1000.0)
    expected = np.clip((sitk.GetArrayFromImage(whole) + 1000) / 1400, 0, 1)
    np.testing.assert_allclose(patch, expected, atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("corner", [0, 1])
def test_outside_the_scan_is_air(name, corner):
    image = make_ct(size=(40, 42, 30), direction=DIRECTIONS[name])
    index = [corner * (n - 1) for n in image.GetSize()]
    point = image.TransformIndexToPhysicalPoint(index)
    patch = extract_patch(Volume(image, Path("ct")), point)
    expected = sample_by_hand(image, point)
    # Samples within rounding of a border voxel's face may fall on either side of it.
    agree = np.isclose(patch, expected, atol=1e-5)
    assert agree.mean() > 0.999
    assert 0.4 < (patch == 0).mean() < 0.95


def test_linear_ramp_keeps_fractions_of_hu():
    # Trilinear interpolation reproduces a linear field exactly; rounding to whole HU would miss by up to 0.5.
    image = make_ct(size=(90, 90, 60), spacing=(0.8, 0.8, 1.1))
    z, y, x = np.indices(image.GetSize()[::-1])
    ramp = sitk.GetImageFromArray((-900 + 3 * x + 5 * y + 2 * z).astype(np.int16))
    ramp.CopyInformation(image)
    point = np.array(centre_of(ramp)) + 0.123
    patch = extract_patch(Volume(ramp, Path("ct")), point)
    offsets = (np.arange(64) - 31.5) * (50 / 64)
    at = [(point[k] + offsets - image.GetOrigin()[k]) / image.GetSpacing()[k] for k in range(3)]
    hu = -900 + 3 * at[0] + 5 * at[1][:, None] + 2 * at[2][:, None, None]
    np.testing.assert_allclose(patch * 1400 - 1000, np.clip(hu, -1000, 400), atol=2e-3)


def test_window_clips_at_its_ends():
    image = make_ct()
    for hu, expected in [(-1024, 0), (-1000, 0), (-300, 0.5), (400, 1), (3071, 1)]:
        flat = sitk.Image(image.GetSize(), sitk.sitkInt16) + hu
        flat.CopyInformation(image)
        patch = extract_patch(Volume(flat, Path("ct")), centre_of(image))
        assert patch[32, 32, 32] == pytest.approx(expected, abs=1e-6)


@pytest.mark.heavy
def test_only_the_needed_part_becomes_floating_point():
    image = make_ct(size=(300, 300, 200))
    volume = Volume(image, Path("ct"))
    part = volume.crop(np.array([centre_of(image), np.array(centre_of(image)) + 10.1]))
    assert part.GetPixelID() == sitk.sitkFloat32
    assert part.GetSize() == (16, 15, 9)  # 10.1 mm at 0.7, 0.8 and 1.5 mm, and the voxels around both ends


def test_nan_voxels_under_the_patch_are_refused():
    image = sitk.Cast(make_ct(), sitk.sitkFloat32)
    image[45, 40, 25] = float("nan")
    with pytest.raises(ImageError, match="NaN or infinite"):
        extract_patch(Volume(image, Path("ct")), centre_of(image))


def test_upscaled_size_is_a_whole_multiple_in_plane():
    patch = torch.rand(1, 1, 64, 64, 64)
    up = torch.nn.functional.interpolate(patch, size=UPSCALED)
    assert up.shape == (1, 1, 64, 128, 128)
    assert torch.equal(up, patch.repeat_interleave(2, 3).repeat_interleave(2, 4))
