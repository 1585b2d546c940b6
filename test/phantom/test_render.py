import numpy as np
import pytest

from nodulemc.phantom.patient import Patient
from nodulemc.phantom.render import draw_nodules, render_box


@pytest.fixture(scope="module")
def scene():
    return Patient(3, 1).scene(Patient(3, 1).scans[0])


def box(scene, body_point, half=15):
    """A box of voxels around a point in body coordinates, without nodules."""
    centre = np.rint(scene.grid.to_index(np.array(body_point) * scene.stretch + scene.offset)).astype(int)
    return render_box(scene, centre - half, centre + half, [])


def lung_points(scene, count=12, depth=15):
    rng = np.random.default_rng(0)
    points = rng.uniform((-110, -70, -60), (110, 70, 70), (3000, 3)).astype(np.float32)
    thorax = scene.anatomy.thorax(*points.T)
    return points[(thorax.lung > depth) & (scene.anatomy.fissure_distance(thorax) > 6)][:count]


def test_lung_is_aerated(scene):
    medians = [np.median(box(scene, point, 8)) for point in lung_points(scene)]
    assert all(-950 < m < -780 for m in medians)


@pytest.mark.heavy
def test_lung_is_denser_at_the_back(scene):
    points = lung_points(scene, count=200)
    hu = np.array([np.median(box(scene, point, 5)) for point in points])
    slope = np.polyfit(points[:, 1], hu, 1)[0]
    assert slope == pytest.approx(scene.anatomy.gradient_hu / 90, abs=0.25)


@pytest.mark.parametrize(
    ("point", "low", "high"),
    [
        ((24, -24, -62), 25, 55),  # heart
        ((0, 14, 80), -1010, -930),  # trachea
        ((-60, 0, -140), 40, 70),  # liver
    ],
)
def test_organs(scene, point, low, high):
    assert low < np.median(box(scene, point, 3)) < high


def test_bone_fat_and_outside_air(scene):
    spine = box(scene, (0, 74, 0), 20)
    assert np.percentile(spine, 90) > 150
    assert spine.max() > 500
    grid = scene.grid
    row = render_box(scene, (0, 256, 60), (512, 266, 64), [])
    corner = render_box(scene, (0, 0, 60), (20, 20, 64), [])
    assert -1024 <= np.median(corner) < -980
    assert ((row > -130) & (row < -80)).mean() > 0.02  # subcutaneous fat
    assert grid.size[:2] == (512, 512)


def test_noise_has_the_stated_strength(scene):
    heart = box(scene, (24, -24, -62), 14).astype(float)
    assert heart.std() == pytest.approx(scene.scanner.noise_hu, rel=0.12)


def test_vessels_taper_and_fill_the_lung(scene):
    vessels = scene.trees.vessels
    middle = (vessels.start + vessels.end) / 2
    depth = scene.anatomy.thorax(*middle.T.astype(np.float32)).lung
    radius = (vessels.start_radius + vessels.end_radius) / 2
    from_hilum = np.linalg.norm(np.abs(middle) - (35, 12, 12), axis=1)
    assert np.median(from_hilum[radius > 2.5]) < 0.75 * np.median(from_hilum[radius < 0.7])
    assert ((depth > 3) & (depth < 12)).sum() > 1000
    assert (vessels.end_radius <= vessels.start_radius * 1.001).all()


def test_part_of_a_scan_has_its_voxels(scene):
    drawn = draw_nodules(scene)
    middle = np.rint(scene.grid.to_index(np.array(scene.nodules[0].centroid))).astype(int)
    lower, upper = middle - (30, 28, 12), middle + (31, 29, 13)
    larger = render_box(scene, lower - (41, 37, 9), upper + (22, 63, 21), drawn)
    part = render_box(scene, lower, upper, drawn)
    x, y, z = (41, 37, 9)
    np.testing.assert_array_equal(part, larger[z : z + 25, y : y + 57, x : x + 61])


def test_every_patient_has_another_body():
    widths = {Patient(3, k).anatomy.half_width for k in range(4)}
    assert len(widths) == 4
