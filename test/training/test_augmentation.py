import numpy as np
import pytest

from nodulemc.training.augmentation import IDENTITY, Augmentation, draw_augmentation
from nodulemc.training.config import AugmentationConfig


def draw_many(config: AugmentationConfig, count: int = 4000) -> list[Augmentation]:
    random = np.random.default_rng(1)
    return [draw_augmentation(config, random) for _ in range(count)]


def test_angles_and_shifts_fill_their_ranges_evenly():
    drawn = draw_many(AugmentationConfig(rotation_degrees=20, shift_mm=2.5))
    angles = np.array([a.angles_deg for a in drawn])
    assert np.abs(angles).max() <= 20
    np.testing.assert_allclose(angles.std(axis=0), 40 / np.sqrt(12), rtol=0.05)  # uniform
    shifts = np.array([a.shift_mm for a in drawn])
    lengths = np.linalg.norm(shifts, axis=1)
    assert lengths.max() <= 2.5
    np.testing.assert_allclose(np.quantile(lengths, [0.25, 0.5, 0.75]), [0.625, 1.25, 1.875], rtol=0.06)
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=0.08)


def test_flips_come_in_thirty_percent_of_the_samples_each_with_even_odds():
    drawn = draw_many(AugmentationConfig(flip_probability=0.3))
    coins = np.array([(*a.flips, a.transposed) for a in drawn])
    # Of the 30 %, an eighth shows none of the three.
    assert coins.any(axis=1).mean() == pytest.approx(0.3 * 7 / 8, abs=0.025)
    np.testing.assert_allclose(coins.mean(axis=0), 0.15, atol=0.02)
    assert not np.array([(*a.flips, a.transposed) for a in draw_many(AugmentationConfig(flip_probability=0))]).any()


def test_the_matrix_is_a_rigid_motion_that_never_flips_the_first_axis():
    for drawn in draw_many(AugmentationConfig(), 200):
        matrix = drawn.matrix()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert matrix[0, 0] > np.cos(np.radians(20)) ** 2 - 1e-9
    np.testing.assert_array_equal(IDENTITY.matrix(), np.eye(3))


def test_the_matrix_by_hand():
    turned = Augmentation(angles_deg=(90.0, 0.0, 0.0)).matrix()
    np.testing.assert_allclose(turned @ [0, 1, 0], [0, 0, 1], atol=1e-12)  # y to x about z
    exchanged = Augmentation(flips=(True, False), transposed=True).matrix()
    # The voxel one step along the output's last axis shows what lies one step back along the first flipped axis.
    np.testing.assert_array_equal(exchanged @ [0, 0, 1], [0, -1, 0])
