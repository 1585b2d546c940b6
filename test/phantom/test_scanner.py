import numpy as np
import pytest

from nodulemc.phantom.scanner import NoiseFilter, correlation_taps, noise, sample_scanner


@pytest.fixture
def scanners():
    return [sample_scanner(np.random.default_rng(k), 270.0) for k in range(60)]


def test_geometry_is_that_of_screening(scanners):
    for scanner in scanners:
        assert 0.55 <= scanner.spacing[0] == scanner.spacing[1] <= 0.85
        assert 1.0 <= scanner.spacing[2] <= 2.5
        assert scanner.spacing[2] <= scanner.thickness <= 2.5
        assert 512 * scanner.spacing[0] > 270
        assert 20 <= scanner.noise_hu <= 60
    assert len({scanner.spacing[2] for scanner in scanners}) >= 4


def test_slice_profile_has_the_thickness_as_its_half_width(scanners):
    for scanner in scanners:
        half = scanner.thickness / 2
        assert np.exp(-0.5 * (half / scanner.blur[2]) ** 2) == pytest.approx(0.5, abs=1e-3)


def test_noise_has_unit_variance_and_the_filters_correlation(scanners):
    texture = scanners[0].noise_filter
    field = noise((1, 2), texture, np.zeros(3, int), np.array([120, 120, 40]))
    assert field.shape == (40, 120, 120)
    assert field.mean() == pytest.approx(0, abs=0.01)
    assert field.std() == pytest.approx(1, abs=0.01)
    full = np.concatenate([texture.in_plane[:0:-1], texture.in_plane])
    for lag in (1, 2, 3):
        expected = np.sum(full[lag:] * full[:-lag])
        assert np.mean(field[..., lag:] * field[..., :-lag]) == pytest.approx(expected, abs=0.01)
        assert np.mean(field[:, lag:] * field[:, :-lag]) == pytest.approx(expected, abs=0.01)


def test_noise_of_a_part_is_part_of_the_noise(scanners):
    texture = scanners[0].noise_filter
    whole = noise((5,), texture, np.zeros(3, int), np.array([150, 140, 40]))
    part = noise((5,), texture, np.array([50, 60, 10]), np.array([149, 140, 33]))
    np.testing.assert_array_equal(part, whole[10:33, 60:140, 50:149])
    assert (
        abs(np.corrcoef(whole.ravel(), noise((6,), texture, np.zeros(3, int), np.array([150, 140, 40])).ravel())[0, 1])
        < 0.01
    )


@pytest.mark.parametrize("correlation", [-0.3, 0.0, 0.2, 0.5])
def test_correlation_taps(correlation):
    taps = correlation_taps(correlation)
    field = noise((3,), NoiseFilter(taps, (1.0,)), np.zeros(3, int), np.array([200, 200, 8]))
    assert np.mean(field[..., 1:] * field[..., :-1]) == pytest.approx(correlation, abs=0.02)
    assert field.std() == pytest.approx(1, abs=0.02)
