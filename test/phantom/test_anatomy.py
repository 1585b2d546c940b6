"""The procedural thorax against lungs as they are measured."""

import numpy as np
import pytest

from nodulemc.phantom.anatomy import Anatomy, _capsule
from nodulemc.phantom.sites import LOBES

STEP_MM = 4.0


def axis(low: float, high: float) -> np.ndarray:
    return np.arange(low, high, STEP_MM, dtype=np.float32)


def lobe_volumes(anatomy: Anatomy) -> np.ndarray:
    """Litres of each lobe, by counting points."""
    x, y, z = axis(-180, 180)[None, None], axis(-140, 140)[None, :, None], axis(-200, 150)[:, None, None]
    thorax = anatomy.thorax(x, y, z)
    lobes = np.broadcast_to(anatomy.lobe(thorax, x), thorax.lung.shape)
    return np.bincount(lobes[thorax.lung > 0], minlength=len(LOBES)) * STEP_MM**3 / 1e6


@pytest.mark.heavy
def test_lungs_and_lobes_hold_what_is_measured_in_ct():
    """Litres: Haas et al., Acad Radiol 2014;21(5), 5.28 ± 0.95, and women's lungs are the smaller ones.

    Shares: Yamada et al., Respiration 2020;99:598, table 3, supine at full inspiration.
    """
    bodies = [(seed, male) for seed in range(10) for male in (True, False)]
    volumes = np.array([lobe_volumes(Anatomy(np.random.default_rng(seed), male=male)) for seed, male in bodies])
    litres = volumes.sum(axis=1)
    assert litres.mean() == pytest.approx(5.28, abs=0.95)
    assert litres[1::2].max() < litres[::2].mean()
    shares = (volumes / litres[:, None]).mean(axis=0)
    assert shares == pytest.approx([0.179, 0.093, 0.265, 0.231, 0.232], abs=0.016)  # the least of their deviations
    assert shares[:3].sum() == pytest.approx(0.536, abs=0.03)


def test_lobes_lie_where_their_names_say():
    anatomy = Anatomy(np.random.default_rng(7), male=False)
    points = np.random.default_rng(8).uniform((-130, -90, -120), (130, 90, 110), (20_000, 3)).astype(np.float32)
    thorax = anatomy.thorax(*points.T)
    lobes = anatomy.lobe(thorax, points[:, 0])
    x, y, z = np.array([points[(lobes == k) & (thorax.lung > 0)].mean(axis=0) for k in range(len(LOBES))]).T
    at = {name: k for k, name in enumerate(LOBES)}
    assert [name.split()[0] for name in LOBES] == ["left" if left else "right" for left in x > 0]
    assert z[at["right upper"]] > z[at["right middle"]] > z[at["right lower"]]
    assert z[at["left upper"]] > z[at["left lower"]]
    assert y[at["right lower"]] > max(y[at["right upper"]], y[at["right middle"]])  # y points to the back
    assert y[at["left lower"]] > y[at["left upper"]]


def test_depth_in_a_tube_is_that_below_the_nearest_of_many_balls():
    start, end, radius = (-12.0, -20.0, -40.0), (22.0, 40.0, 38.0), 9.0
    x, y, z = np.random.default_rng(2).uniform(-80, 80, (3, 300)).astype(np.float32)
    centres = np.linspace(start, end, 1001)
    nearest = np.linalg.norm(np.stack([x, y, z], axis=1)[:, None] - centres, axis=2).min(axis=1)
    np.testing.assert_allclose(_capsule(x, y, z, start, end, radius), radius - nearest, atol=0.02)


def test_normals_point_where_the_depth_grows():
    anatomy = Anatomy(np.random.default_rng(3), male=True)
    points = np.random.default_rng(4).uniform((-120, -80, -60), (120, 80, 90), (4000, 3))

    def depth(places: np.ndarray) -> np.ndarray:
        return anatomy.thorax(*places.T.astype(np.float32)).lung.astype(float)

    points = points[np.abs(depth(points)) < 3]
    normals = anatomy.inward_normal(points)
    assert len(points) > 100
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1)
    gain = depth(points + 0.5 * normals) - depth(points - 0.5 * normals)
    assert np.median(gain) == pytest.approx(1, abs=0.25)  # mm per mm: the field is a distance
    for other in np.random.default_rng(5).normal(size=(20, 3)):
        along = 0.5 * other / np.linalg.norm(other)
        assert (gain >= depth(points + along) - depth(points - along) - 0.05).mean() > 0.97
