import base64
import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct, rotation
from digital_shapes import ball
from PIL import Image
from report.samples import grey

from nodulemc.ct.volume import Volume
from nodulemc.measure.mask import nodule_mask
from nodulemc.patch import CENTRE_INDEX, SIZE, VOXEL_MM
from nodulemc.points.nodules import Nodule
from nodulemc.report import pictures
from nodulemc.report.occlusion import cell_slices
from nodulemc.report.pictures import look_at_nodule

LUNG, SOFT = (-1350, 150), (-160, 240)
# Directions of the axes i, j, k as columns.
GRIDS = {
    "as usual": np.eye(3),
    "head first in the file": np.diag([1, -1, -1]),
    "RAS": np.diag([-1, -1, 1]),
    "sagittal slices": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "coronal slices": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


def drawn(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)


def view_of(image, offset=(0.0, 0.0, 0.0)):
    point = tuple(c + d for c, d in zip(centre_of(image), offset, strict=True))
    return look_at_nodule(Volume(image, Path("ct.mha")), Nodule("n", point)), point


def cut(image, picture, point, along):
    """The CT's values on a picture's pixels by SimpleITK, nearest neighbour on a grid along the body's axes.

    ``along`` are the world directions of the picture's columns and rows.
    """
    mm = [length / n for length, n in zip(picture.extent_mm, picture.size, strict=True)]
    voxel = image.TransformIndexToPhysicalPoint(image.TransformPhysicalPointToIndex(point))
    right, down = np.array(along, float)
    rows = []
    half = [n // 2 for n in picture.size]
    for r in range(picture.size[1]):
        places = [voxel + right * (c - half[0]) * mm[0] + down * (r - half[1]) * mm[1] for c in range(picture.size[0])]
        rows.append([image.GetPixel(image.TransformPhysicalPointToIndex(place.tolist())) for place in places])
    return np.array(rows)


@pytest.mark.parametrize("grid", GRIDS)
def test_planes_are_the_scans_voxels_turned_as_radiologists_hang_them(grid):
    image = make_ct(size=(70, 80, 90), spacing=(0.75, 0.8, 0.9), direction=GRIDS[grid])
    view, point = view_of(image, (2.0, -1.5, 1.0))
    left, back, feet = (1, 0, 0), (0, 1, 0), (0, 0, -1)
    level = view.levels.index(view.centre[0])
    for plane, along in {"axial": (left, back), "coronal": (left, feet), "sagittal": (back, feet)}.items():
        picture = view.planes[plane]
        truth = cut(image, picture, point, along)
        k = level if plane == "axial" else 0
        assert (drawn(picture.slices["lung"][k]) == grey(truth, *LUNG)).all(), plane
        assert (drawn(picture.slices["soft"][k]) == grey(truth, *SOFT)).all(), plane


def test_every_level_is_the_scans_slice():
    image = make_ct()
    view, point = view_of(image)
    hu = sitk.GetArrayFromImage(image)
    i, j, k = image.TransformPhysicalPointToIndex(point)
    columns, rows = view.planes["axial"].size
    assert (columns, rows) == (2 * 35 + 1, 2 * 31 + 1)
    assert len(view.levels) == 2 * 16 + 1
    for png, z in zip(view.planes["axial"].slices["lung"], range(k - 16, k + 17), strict=True):
        assert (drawn(png) == grey(hu[z, j - 31 : j + 32, i - 35 : i + 36], *LUNG)).all()


def test_extents_are_physical():
    view, _ = view_of(make_ct(spacing=(0.6, 0.8, 1.5)))
    for plane, mm in {"axial": (0.6, 0.8), "coronal": (0.6, 1.5), "sagittal": (0.8, 1.5)}.items():
        picture = view.planes[plane]
        assert np.divide(picture.extent_mm, picture.size) == pytest.approx(mm)
        assert all(
            50 - 2 * pixel < length < 50 + 2 * pixel for length, pixel in zip(picture.extent_mm, mm, strict=True)
        )


def test_a_tilted_scan_is_shown_on_its_own_slices():
    image = make_ct(size=(90, 90, 60), direction=rotation(12, -8, 5))
    view, point = view_of(image)
    i, j, k = image.TransformPhysicalPointToIndex(point)
    hu = sitk.GetArrayFromImage(image)[k]
    columns, rows = view.planes["axial"].size
    truth = hu[j - rows // 2 : j + rows // 2 + 1, i - columns // 2 : i + columns // 2 + 1]
    shown = view.planes["axial"].slices["lung"][view.levels.index(view.centre[0])]
    assert (drawn(shown) == grey(truth, *LUNG)).all()


def test_at_the_scans_corner_only_the_scan_is_shown():
    image = make_ct()
    point = image.TransformIndexToPhysicalPoint((0, 0, 0))
    view = look_at_nodule(Volume(image, Path("ct.mha")), Nodule("n", point))
    assert view.planes["axial"].size == (36, 32)
    assert view.planes["coronal"].size == (36, 17)
    assert view.centre == (0, 0, 0)
    assert (view.overview.number, view.overview.count) == (1, 50)
    assert view.overview.box[:2] == (0, 0)


@pytest.mark.parametrize("grid", GRIDS)
def test_overview_counts_from_the_feet_and_frames_the_nodule(grid):
    direction = GRIDS[grid]
    image = make_ct(size=(70, 80, 90), spacing=(0.75, 0.8, 0.9), direction=direction)
    view, point = view_of(image, (6.0, -3.5, 4.0))
    across = int(np.argmax(abs(direction[2])))
    index, count = image.TransformPhysicalPointToIndex(point)[across], image.GetSize()[across]
    from_feet = index + 1 if direction[2, across] > 0 else count - index
    assert (view.overview.number, view.overview.count) == (from_feet, count)
    corners = [image.TransformIndexToPhysicalPoint(c) for c in ((0, 0, 0), [n - 1 for n in image.GetSize()])]
    low, high = np.min(corners, axis=0)[:2], np.max(corners, axis=0)[:2]
    mm = np.array(view.overview.picture.extent_mm)
    assert mm == pytest.approx(high - low, abs=1)
    left, top, width, height = np.array(view.overview.box) / 100
    first, last = np.array([left, top]) * mm, np.array([left + width, top + height]) * mm
    assert first == pytest.approx(np.maximum(np.array(point[:2]) - 25 - low, 0), abs=1.3)
    assert last == pytest.approx(np.minimum(np.array(point[:2]) + 25 - low, mm), abs=1.3)


def test_overview_is_small_and_undistorted():
    image = make_ct(size=(200, 100, 4), spacing=(0.5, 0.9, 2.0))
    view, _ = view_of(image)
    assert drawn(view.overview.picture.slices["lung"][0]).shape == (230, 256)
    assert view.overview.picture.extent_mm == pytest.approx((100, 90))


def test_many_slices_are_thinned_around_the_point(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 50_000)
    view, _ = view_of(make_ct())
    assert view.step == 3
    assert view.centre[0] in view.levels
    assert set(np.diff(view.levels)) == {3}
    assert len(view.planes["axial"].slices["lung"]) == len(view.levels)


@pytest.mark.parametrize("grid", GRIDS)
def test_mask_planes_are_the_masks(grid):
    image = make_ct(size=(70, 80, 90), spacing=(0.75, 0.8, 0.9), direction=GRIDS[grid])
    view, point = view_of(image, (2.0, -1.5, 1.0))
    volume = Volume(image, Path("ct.mha"))
    mask = nodule_mask(volume, point, ball(14, shift=(2, -1, 3)))
    whole = np.zeros(image.GetSize()[::-1], np.int16)
    whole[mask.slices] = mask.voxels
    labels = sitk.GetImageFromArray(whole)
    labels.CopyInformation(image)
    left, back, feet = (1, 0, 0), (0, 1, 0), (0, 0, -1)
    planes = view.mask_planes(mask)
    for plane, along in {"axial": (left, back), "coronal": (left, feet), "sagittal": (back, feet)}.items():
        k = view.levels.index(view.centre[0]) if plane == "axial" else 0
        truth = cut(labels, view.planes[plane], point, along)
        assert truth.any()
        assert ((planes[plane][k] > 0.5) == (truth == 1)).all(), plane
    assert len(planes["axial"]) == len(view.levels)


def test_what_is_no_number_is_shown_as_air():
    assert pictures.WINDOWS["lung"].grey(np.array([np.nan, -np.inf, np.inf, -600])).tolist() == [55, 0, 255, 128]


@pytest.mark.parametrize("grid", [*GRIDS, "oblique"])
def test_changes_are_coloured_where_they_are(grid):
    direction = GRIDS.get(grid, rotation(9, -6, 11))
    image = make_ct(size=(70, 80, 90), spacing=(0.75, 0.8, 0.9), direction=direction)
    view, point = view_of(image, (2.0, -1.5, 1.0))
    changes = np.zeros((SIZE,) * 3)
    changes[cell_slices((3, 3, 4))], changes[cell_slices((4, 3, 3))] = 0.4, -0.2
    turned = sitk.DICOMOrient(image, "LPS")
    middle = np.array(turned.TransformPhysicalPointToIndex(point))
    coloured = view.change_planes(changes, point)
    grey_of = {name: drawn(view.planes[name].slices["lung"][0]) for name in ("coronal", "sagittal")}
    grey_of["axial"] = drawn(view.planes["axial"].slices["lung"][view.levels.index(view.centre[0])])
    seen = {"raises": 0, "lowers": 0}
    for name, (right, down) in {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}.items():
        found, before = drawn(coloured[name]), grey_of[name]
        z, y, x = view.centre
        column, row = {"axial": (x, y), "coronal": (x, len(before) - 1 - z), "sagittal": (y, len(before) - 1 - z)}[name]
        for r, c in np.ndindex(before.shape):
            index = middle.copy()
            index[right] += c - column
            index[down] += (r - row) * (-1 if down == 2 else 1)
            place = np.subtract(turned.TransformIndexToPhysicalPoint(index.tolist()), point)
            nearest = tuple(np.clip(np.rint(place[::-1] / VOXEL_MM + CENTRE_INDEX), 0, SIZE - 1).astype(int))
            share = 0.7 * abs(changes[nearest]) / 0.4
            colour = np.array([255, 140, 0] if changes[nearest] > 0 else [60, 150, 255])
            if min(abs(abs((place[::-1] / VOXEL_MM + CENTRE_INDEX) % 1 - 0.5))) < 1e-3:
                continue  # between two of the patch's voxels
            assert found[r, c] == pytest.approx((1 - share) * before[r, c] + share * colour, abs=1)
            seen["raises"] += changes[nearest] > 0
            seen["lowers"] += changes[nearest] < 0
    assert min(seen.values()) > 50


def test_small_changes_get_pale_colours():
    view, point = view_of(make_ct())
    changes = np.full((SIZE,) * 3, 0.002)
    before = drawn(view.planes["coronal"].slices["lung"][0])
    found = drawn(view.change_planes(changes, point)["coronal"])
    np.testing.assert_allclose(found[..., 0], 0.93 * before + 0.07 * 255, atol=1)
