from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import rotation

from nodulemc import limits
from nodulemc.ct.checks import check_bytes, check_geometry, check_grid, itk_direction
from nodulemc.errors import ImageError

PATH = Path("ct.mha")
MM, ORIGIN = (0.7, 0.7, 1.25), (-170.0, 12.0, -310.0)
SHEAR = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1.0]])


def refused(spacing=MM, origin=ORIGIN, direction=None) -> bool:
    try:
        check_geometry(spacing, origin, np.ravel(np.eye(3) if direction is None else direction).tolist(), PATH)
    except ImageError:
        return True
    return False


@pytest.mark.parametrize("distortion", [np.diag([1, 1, 0.0]), SHEAR - np.eye(3), np.ones((3, 3))])
def test_a_direction_is_refused_where_its_gram_matrix_is_further_from_the_identity_than_the_limit(distortion):
    for turn in (np.eye(3), np.diag([1, -1, -1.0]), rotation(20, -35, 80)):
        errors, found = [], []
        for size in np.linspace(-0.02, 0.02, 81):
            matrix = turn @ (np.eye(3) + size * distortion)
            errors.append(np.abs(matrix @ matrix.T - np.eye(3)).max())
            found.append(refused(direction=matrix))
        assert found == [error > limits.MAX_DIRECTION_ERROR for error in errors]
        assert 10 < sum(found) < 78


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_no_geometry(number):
    assert not refused()
    assert refused(spacing=(0.7, number, 1.25))
    assert refused(origin=(number, 12.0, -310.0))
    for place in range(9):
        matrix = np.eye(3)
        matrix.flat[place] = number
        assert refused(direction=matrix)


def test_the_ends_of_the_limits_are_allowed():
    low, high = limits.SPACING_MM
    far = limits.MAX_COORDINATE_MM
    assert not refused(spacing=(low, high, 1.0), origin=(far, -far, 0.0))
    for spacing in (np.nextafter(low, 0), np.nextafter(high, 99), 0.0, -0.7):
        assert refused(spacing=(0.7, 0.7, spacing))
    for beyond in (np.nextafter(far, np.inf), -np.nextafter(far, np.inf)):
        assert refused(origin=(0.0, 0.0, beyond))
    check_bytes(limits.MAX_CT_BYTES, PATH)
    with pytest.raises(ImageError, match="a CT has at most 4 GiB"):
        check_bytes(limits.MAX_CT_BYTES + 1, PATH)


def test_a_direction_for_itk_can_be_inverted_and_turns_nothing():
    tiny = [1.0, 0, 0, 2e-319, 1, 1e-310, 0, 0, 1]

    def index_of(direction: list[float]) -> tuple[float, ...]:
        image = sitk.Image([2, 2, 2], sitk.sitkInt16)
        image.SetDirection(direction)
        return image.TransformPhysicalPointToContinuousIndex((0.25, 0.5, 0.75))

    assert np.isnan(index_of(tiny)).any()
    assert index_of(itk_direction(tiny)) == pytest.approx((0.25, 0.5, 0.75), abs=1e-12)
    turned = rotation(20, -35, 80).ravel().tolist()
    assert itk_direction(turned) == turned


@pytest.mark.parametrize(
    ("size", "pixel", "message"),
    [
        ((4, 4, 4), sitk.sitkFloat64, None),
        ((4, 4, 4), sitk.sitkUInt8, None),
        ((4, 4), sitk.sitkInt16, "size 4×4: "),
        ((4, 4, 1), sitk.sitkInt16, "size 4×4×1: "),
        ((2, 2, 2, 2), sitk.sitkInt16, "size 2×2×2×2: "),
        ((4, 4, 4), sitk.sitkComplexFloat32, "of type complex"),
        ((4, 4, 4), sitk.sitkVectorInt16, "of type vector"),
        ((4, 4, 4), sitk.sitkLabelUInt8, "of type label"),
    ],
)
def test_an_image_is_a_scalar_one_of_three_dimensions(size, pixel, message):
    image = sitk.Image(list(size), pixel)
    if message is None:
        check_grid(image, PATH)
        return
    with pytest.raises(ImageError, match=message):
        check_grid(image, PATH)
