from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nodulemc.geometry import Grid
from nodulemc.phantom.malignancy import Traits
from nodulemc.phantom.nodule import render_nodule, sample_nodule

GRID = Grid((90, 90, 80), (0.5, 0.5, 0.6), (-20.0, 10.0, -300.0))
CENTRE = np.array([2.1, 32.3, -276.2])
BLUR = (0.6, 0.6, 0.8)
NORMAL = np.array([0.6, 0.0, 0.8])


def nodule(margin="smooth", density="solid", calcification="none", attachment="none", seed=0):
    return sample_nodule(np.random.default_rng(seed), Traits(margin, density, calcification, attachment), NORMAL)


def ball():
    empty = np.zeros((0, 3))
    return replace(nodule(), axes=np.eye(3), bumps=empty, bump_height=np.zeros(0), tissue_hu=40.0)


def volume(rendered):
    return float(np.prod(GRID.spacing) * rendered.mask.sum())


def test_balls_mask_is_a_ball():
    rendered = render_nodule(ball(), CENTRE, 12.0, GRID, BLUR)
    k, j, i = np.indices(rendered.mask.shape)
    points = GRID.to_world(np.stack([i, j, k], axis=-1) + rendered.lower)
    inside = np.linalg.norm(points - CENTRE, axis=-1) <= 6.0
    assert volume(rendered) == pytest.approx(np.pi / 6 * 12**3, rel=0.01)
    assert np.mean(inside != (rendered.mask > 0)) < 0.005


@pytest.mark.heavy
def test_cover_is_the_ball_blurred_by_the_point_spread_function():
    rendered = render_nodule(ball(), CENTRE, 9.0, GRID, BLUR)
    fine = 5
    k, j, i = np.indices(np.array(rendered.mask.shape) * fine)
    index = (np.stack([i, j, k], axis=-1) + 0.5) / fine - 0.5 + rendered.lower
    inside = (np.linalg.norm(GRID.to_world(index) - CENTRE, axis=-1) <= 4.5).astype(float)
    sigma = [b / s * fine for b, s in zip(BLUR, GRID.spacing, strict=True)][::-1]
    blurred = gaussian_filter(inside, sigma)[fine // 2 :: fine, fine // 2 :: fine, fine // 2 :: fine]
    np.testing.assert_allclose(rendered.cover, blurred, atol=0.03)
    np.testing.assert_allclose(rendered.filled, 40 * rendered.cover, atol=1e-3)


@pytest.mark.heavy
@pytest.mark.parametrize("margin", ["smooth", "lobulated", "spiculated"])
@pytest.mark.parametrize("attachment", ["none", "pleura", "fissure"])
@pytest.mark.parametrize("diameter", [6.0, 14.0])
def test_volume_and_centroid_are_as_asked(margin, attachment, diameter):
    rendered = render_nodule(nodule(margin, attachment=attachment, seed=3), CENTRE, diameter, GRID, BLUR)
    assert volume(rendered) == pytest.approx(np.pi / 6 * diameter**3, rel=0.04)
    centroid = GRID.to_world(np.argwhere(rendered.mask)[:, ::-1].mean(axis=0) + rendered.lower)
    assert np.linalg.norm(centroid - CENTRE) < 0.15


def test_pleural_nodule_ends_at_the_pleura():
    form = nodule(attachment="pleura")
    rendered = render_nodule(form, CENTRE, 12.0, GRID, BLUR)
    scale = 12.0 / form.measures.diameter
    surface = form.plane[1] * scale - form.measures.centroid @ NORMAL * scale  # distance from the centroid
    points = GRID.to_world(np.argwhere(rendered.mask)[:, ::-1] + rendered.lower) - CENTRE
    assert (points @ NORMAL).max() == pytest.approx(surface, abs=0.4)
    assert (points @ -NORMAL).max() > surface + 1


def test_oblique_grid_draws_the_same_nodule():
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    start = CENTRE - turn @ (np.array(GRID.spacing) * 40)
    oblique = replace(GRID, origin=tuple(start), direction=tuple(turn.ravel()))
    rendered = render_nodule(nodule("lobulated"), CENTRE, 12.0, oblique, BLUR)
    centroid = oblique.to_world(np.argwhere(rendered.mask)[:, ::-1].mean(axis=0) + rendered.lower)
    assert np.linalg.norm(centroid - CENTRE) < 0.15
    assert volume(rendered) == pytest.approx(np.pi / 6 * 12**3, rel=0.03)


def spicule_share(rendered):
    return float((rendered.cover * (1 - rendered.mask)).sum() / rendered.mask.sum())


def test_margins_differ_in_outline():
    def unevenness(form):
        directions = np.random.default_rng(1).normal(size=(3000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        ellipsoid = 1 / np.linalg.norm(directions @ form.axes.T, axis=1)
        ratio = form.radius(directions) / ellipsoid
        return float(ratio.std() / ratio.mean())

    smooth, lobulated = (np.mean([unevenness(nodule(m, seed=k)) for k in range(5)]) for m in ("smooth", "lobulated"))
    assert lobulated > 3 * smooth
    smooth, spiculated = (render_nodule(nodule(m), CENTRE, 12.0, GRID, BLUR) for m in ("smooth", "spiculated"))
    assert spicule_share(spiculated) > 1.5 * spicule_share(smooth)


def test_densities_and_calcification():
    middle = {}
    for key, form in {
        "solid": nodule(),
        "ground-glass": nodule(density="ground-glass"),
        "part-solid": nodule(density="part-solid"),
        "central": nodule(calcification="central"),
    }.items():
        rendered = render_nodule(form, CENTRE, 14.0, GRID, BLUR)
        hu = -860 * (1 - rendered.cover) + rendered.filled
        k, j, i = (np.rint(GRID.to_index(CENTRE)).astype(int) - rendered.lower)[::-1]
        middle[key] = hu[k, j, i]
        outer = hu[(rendered.mask > 0) & (rendered.cover < 0.5)]
        if key == "part-solid":
            assert -800 < np.median(outer) < -350
    assert 15 < middle["solid"] < 60
    assert -700 < middle["ground-glass"] < -450
    assert 0 < middle["part-solid"] < 60
    assert middle["central"] > 250
