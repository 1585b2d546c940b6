"""Axes of shapes whose diameters are known in closed form."""

import numpy as np
import pytest

from nodulemc.measure.axes import Axes, longest_axes


def ellipse(halves, angle, size=81, spacing=(0.5, 0.5), centre=(0.0, 0.0)):
    """A field that is about the distance in mm to an ellipse's edge, above 0 within it."""
    rows, columns = (np.indices((size, size)) - (size - 1) / 2) * np.reshape(spacing, (2, 1, 1))
    y, x = rows - centre[0], columns - centre[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(u / halves[0], v / halves[1])
    slope = np.hypot(u / halves[0] ** 2, v / halves[1] ** 2)
    return (1 - radius) * radius / np.maximum(slope, 1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.5])
def test_an_ellipses_axes(angle):
    found = longest_axes(ellipse((9.0, 4.0), angle, centre=(0.13, -0.21))[None], (0.5, 0.5))
    assert found.long_mm == pytest.approx(18, abs=0.1)
    assert found.short_mm == pytest.approx(8, abs=0.1)


def test_pixels_need_not_be_square():
    field = ellipse((9.0, 4.0), 0.6, spacing=(0.4, 0.7))
    found = longest_axes(field[None], (0.4, 0.7))
    assert (found.long_mm, found.short_mm) == pytest.approx((18, 8), abs=0.15)


def test_edges_of_voxels_that_are_in_or_out_are_their_faces():
    field = np.full((1, 3, 9), -0.5)
    field[0, 1, 2:7] = 0.5
    assert longest_axes(field, (2.0, 3.0)) == Axes(pytest.approx(15), pytest.approx(2))


def test_the_border_of_the_array_is_an_edge():
    assert longest_axes(np.full((1, 1, 4), 0.5), (1.0, 1.0)) == Axes(pytest.approx(4), pytest.approx(1))


def test_the_slice_with_the_longest_diameter_counts():
    fields = np.stack([ellipse((a, b), 0.0) for a, b in ((4.0, 4.0), (6.0, 3.0), (5.0, 5.0))])
    found = longest_axes(fields, (0.5, 0.5))
    assert (found.long_mm, found.short_mm) == pytest.approx((12, 6), abs=0.1)


def test_parts_of_a_slice_are_measured_each_by_itself():
    apart = np.maximum(ellipse((3.0, 2.0), 0.0, centre=(0, -9)), ellipse((4.0, 2.5), 0.0, centre=(0, 9)))
    found = longest_axes(apart[None], (0.5, 0.5))
    assert (found.long_mm, found.short_mm) == pytest.approx((8, 5), abs=0.1)


def test_the_short_axis_is_the_longest_at_right_angles_wherever_it_lies():
    """A bar of 20 × 2 mm with a bar across it at a quarter of its length."""
    field = np.full((1, 61, 61), -0.5)
    field[0, 28:32, 10:50] = 0.5
    field[0, 24:36, 16:22] = 0.5
    found = longest_axes(field, (0.5, 0.5))
    assert found.long_mm == pytest.approx(20, abs=0.2)
    assert found.short_mm == pytest.approx(6, abs=0.25)


def test_nothing_has_no_axes():
    assert longest_axes(np.full((2, 5, 5), -0.5), (1.0, 1.0)) is None
