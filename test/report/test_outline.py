import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nodulemc.report.outline import UNITS, path


def loops(text):
    """A path's corners x, y by loop."""
    found = []
    for loop in re.findall(r"M([^z]*)z", text):
        start, steps = loop.split("l")
        places = np.array([[*map(int, start.split())], *np.reshape([*map(int, re.findall(r"-?\d+", steps))], (-1, 2))])
        found.append(np.cumsum(places, axis=0))
    return found


def filled(text, shape):
    """Which pixels' middles lie inside, by the even-odd rule."""
    inside = np.zeros((shape[0] * UNITS, shape[1] * UNITS), bool)
    for loop in loops(text):
        one = Image.new("1", inside.shape[::-1])
        ImageDraw.Draw(one).polygon([tuple(place) for place in loop.tolist()], fill=1)
        inside ^= np.asarray(one)
    return inside[UNITS // 2 :: UNITS, UNITS // 2 :: UNITS]


def smooth(shape, seed):
    """Blobs with holes, that touch the border; nothing lies near one half."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    field = sum(
        np.sin(rows * rng.uniform(0.2, 0.7) + columns * rng.uniform(-0.7, 0.7) + rng.uniform(0, 6)) for _ in range(4)
    )
    p = 1 / (1 + np.exp(-2 * field))
    return np.where(abs(p - 0.5) < 0.1, 0.5 + 0.1 * np.sign(p - 0.5), p)


@pytest.mark.parametrize("seed", range(4))
def test_outline_parts_the_mask_from_what_is_not(seed):
    p = smooth((40, 31), seed)
    text = path(p)
    assert len(loops(text)) > 1
    assert (filled(text, p.shape) == (p > 0.5)).all()


def test_loops_are_closed():
    for loop in loops(path(smooth((40, 31), 5))):
        assert (loop[0] == loop[-1]).all()


def test_a_ball_is_as_large_as_it_is():
    rows, columns = np.indices((50, 50)) - 24.5
    p = np.clip(0.5 + (15.3 - np.hypot(rows, columns)), 0, 1)
    (loop,) = loops(path(p))
    x, y = (loop / UNITS - 25).T
    assert np.hypot(x, y) == pytest.approx(15.3, abs=0.15)
    area = abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2
    assert area == pytest.approx(np.pi * 15.3**2, rel=0.01)


def test_a_single_voxel_and_two_that_touch_at_a_corner():
    p = np.zeros((6, 6))
    p[2, 2] = p[3, 3] = 1
    assert len(loops(path(p))) == 2
    assert (filled(path(p), p.shape) == (p > 0.5)).all()


def test_no_mask_has_no_outline():
    assert path(np.full((5, 5), 0.5)) == ""


def test_exact_halves_do_not_break_it():
    p = np.random.default_rng(0).choice([0.0, 0.5, 1.0], (20, 20))
    assert all((loop[0] == loop[-1]).all() for loop in loops(path(p)))
