"""Points in a drawn chest whose every place is known, and conventions that points come in."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch
from scipy import ndimage

from nodulemc import cli
from nodulemc.cohort.read_scan import Job, read_scan
from nodulemc.cohort.scan import Scan
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import PointsError
from nodulemc.patch import HU_WINDOW, SIZE, VOXEL_MM, extract_patch, scale_hu
from nodulemc.points.nodules import Nodule
from nodulemc.points.placement import BALL_MM, REACH_MM, surroundings
from nodulemc.prediction import prepare_inputs

OUTSIDE = "the point lies outside the body, in the air beside the patient"
EMPTY = "nothing denser than lung lies within 3 mm of the point"
# Balls in lung (x, y, z, radius in mm, HU): two solid ones and one of ground glass.
NODULES = ((-70.0, 10.0, -20.0, 5.0, 30.0), (60.0, -30.0, 15.0, 3.0, -20.0), (75.0, 25.0, 0.0, 7.0, -640.0))
SOLID, SMALL, GROUND_GLASS = (nodule[:3] for nodule in NODULES)


def chest(size=(180, 140, 64), spacing=(2.0, 2.0, 2.0), origin=(-185.0, -135.0, -60.0)) -> sitk.Image:
    """An elliptic body with two lungs that reach its lower end, nodules, a windpipe and a table."""
    x, y, z = (o + mm * np.arange(n) for n, mm, o in zip(size, spacing, origin, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    hu = np.full(z.shape, -1000.0)
    hu[(x / 150) ** 2 + (y / 100) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - 70 * side) / 50) ** 2 + (y / 70) ** 2 < 1] = -860
    hu[(x**2 + (y + 10) ** 2 < 9**2)] = -1000
    hu[abs(y - 112) < 3] = 100
    for *centre, radius, value in NODULES:
        hu[radius**2 > np.sum((np.stack([x, y, z]).T - centre) ** 2, axis=-1).T] = value
    image = sitk.GetImageFromArray((hu + np.random.default_rng(1).normal(0, 25, hu.shape)).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


CHEST = Volume(chest(), Path("chest"))


def warnings_at(*points, volume=CHEST):
    return prepare_inputs(volume, [Nodule(None, tuple(point)) for point in points])[1]


def words(point, volume=CHEST):
    (warnings,) = warnings_at(point, volume=volume).nodules
    return [warning for warning in warnings if "cube reaches" not in warning]


def test_the_contrast_is_a_rank_filters():
    patch = scale_hu(np.random.default_rng(3).normal(-700, 150, (SIZE,) * 3).astype(np.float32))
    offsets = (np.indices((5, 5, 5)) - 2) * VOXEL_MM
    ball = np.linalg.norm(offsets, axis=0) <= BALL_MM
    ranked = ndimage.rank_filter(patch, rank=int(0.1 * (ball.sum() - 1)), footprint=ball)
    near = np.linalg.norm((np.indices(patch.shape) - (SIZE - 1) / 2) * VOXEL_MM, axis=0) <= REACH_MM
    low, high = HU_WINDOW
    densest = ranked[near].max() * (high - low) + low
    hu = patch[::2, ::2, ::2] * (high - low) + low
    expected = densest - np.median(hu[(hu > -970) & (hu < -500)])
    assert surroundings(patch).contrast_hu == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("layers", "hu"), [(32, -860), (8, -700), (64, -950), (48, -1000), (64, 40)])
def test_lung_is_counted_and_air_is_not(layers, hu):
    patch = np.full((SIZE,) * 3, scale_hu(np.float32(40)))
    patch[:layers] = scale_hu(np.float32(hu))
    lung = layers / SIZE if -970 < hu < -500 else 0
    assert surroundings(patch).lung_share == lung


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (SOLID, []),
        (SMALL, []),
        (GROUND_GLASS, []),
        ((SOLID[0] + 4, SOLID[1], SOLID[2]), []),
        ((-45, -20, 10), [EMPTY]),
        ((70, -40, -58), [EMPTY]),  # lung at the scan's lower end
        ((0, -10, 0), [EMPTY]),
        ((-160, -100, 0), [OUTSIDE]),
        ((0, -104, 20), [OUTSIDE]),  # in front of the breast bone
        ((0, 122, -55), [OUTSIDE]),  # below the table
        ((155, 0, 0), [OUTSIDE]),
    ],
)
def test_each_place_is_told(point, expected):
    assert words(point) == expected


@pytest.mark.parametrize(("radius", "length", "expected"), [(0.9, 40, [EMPTY]), (2.0, 40, []), (2.0, 2.0, [])])
def test_a_thin_vessel_is_no_nodule(radius, length, expected):
    """Cylinders in lung: a vessel of 1.8 mm, one of 4 mm, and a nodule of 4 mm."""
    z, y, x = (np.indices((90, 90, 90)) - 44.5) * 0.75
    hu = np.where((np.hypot(x, y) < radius) & (abs(z) < length), 40, -860)
    image = sitk.GetImageFromArray((hu + np.random.default_rng(2).normal(0, 25, hu.shape)).astype(np.int16))
    image.SetSpacing([0.75] * 3)
    centre = image.TransformContinuousIndexToPhysicalPoint([44.5] * 3)
    assert words(centre, volume=Volume(image, Path("lung"))) == expected


def test_tissue_without_lung_around_and_beside_air_is_told():
    (warning,) = words((0, -85, 0))
    assert warning.startswith("no lung around the point: ")
    (warning,) = words((0, 75, 0))
    assert warning.startswith("no lung around the point: ")


@pytest.mark.heavy
@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("flipped", [False, True])
def test_places_do_not_depend_on_how_voxels_are_stored(order, flipped):
    image = sitk.Flip(sitk.PermuteAxes(CHEST.image, order), [flipped] * 3)
    stored = Volume(image, Path("stored"))
    for point in (SOLID, GROUND_GLASS, (-45, -20, 10), (-160, -100, 0), (155, 0, 0), (70, -40, -58)):
        assert words(point, volume=stored) == words(point)


def test_lung_at_the_sides_of_a_part_of_a_chest_is_inside_the_body():
    part = Volume(CHEST.image[45:85, 40:100, 10:50], Path("part"))
    assert words((-68, -20, 10), volume=part) == [EMPTY]
    assert words(SOLID, volume=part) == []


def test_an_empty_file_and_a_scan_without_air_or_lung_are_looked_at():
    assert prepare_inputs(CHEST, [])[1].nodules == ()
    tissue = Volume(sitk.Image([100, 100, 100], sitk.sitkInt16) + 40, Path("tissue"))
    assert [warning.split(":")[0] for warning in words((50, 50, 50), volume=tissue)] == ["no lung around the point"]


def as_indices(point):
    return CHEST.image.TransformPhysicalPointToContinuousIndex(point)


READINGS = {
    "RAS, not LPS": lambda p: (-p[0], -p[1], p[2]),
    "voxel indices, not mm": as_indices,
    "voxel indices in the order z, y, x": lambda p: as_indices(p)[::-1],
    "z, y, x, not x, y, z": lambda p: p[::-1],
    "y, x, z, not x, y, z": lambda p: (p[1], p[0], p[2]),
    "x, z, y, not x, y, z": lambda p: (p[0], p[2], p[1]),
}


def said_of(points, volume=CHEST):
    try:
        return " ".join(warnings_at(*points, volume=volume).scan)
    except PointsError as error:
        return str(error)


@pytest.mark.heavy
@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("points", [(SOLID, SMALL, GROUND_GLASS), (GROUND_GLASS, SMALL)])
def test_another_reading_is_recognised(name, points):
    converted = [READINGS[name](point) for point in points]
    assert f"points look like {name}" in said_of(converted)
    assert "give x, y, z in mm, LPS" in said_of(converted)


def test_points_that_fit_or_fit_in_no_way_suggest_nothing():
    for points in ((SOLID, SMALL, GROUND_GLASS), (SOLID, (-45, -20, 10)), ((-45, -20, 10),), ((-160, -100, 0),)):
        assert "look like" not in said_of(points)
    assert said_of([(900, 0, 0)]).endswith("check that point and CT belong together and that the point is x, y, z in "
                                           "mm, LPS")  # fmt: skip


def test_a_damaged_voxel_elsewhere_is_no_error_of_these_points():
    hu = sitk.GetArrayFromImage(sitk.Cast(CHEST.image, sitk.sitkFloat32))
    x, y, z = map(round, as_indices((45, 20, 10)))
    hu[z, y, x] = np.nan
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(CHEST.image)
    # As RAS the point would be at the damaged voxel.
    assert words((-45, -20, 10), volume=Volume(image, Path("damaged"))) == [EMPTY]


def test_a_cohort_keeps_the_same_warnings(tmp_path):
    sitk.WriteImage(CHEST.image, str(tmp_path / "ct.mha"))
    points = [READINGS["RAS, not LPS"](point) for point in (SOLID, SMALL)]
    nodules = tuple(Nodule(str(k), point) for k, point in enumerate(points))
    warnings = read_scan(Job(Scan("ct", tmp_path / "ct.mha", nodules))).warnings
    assert (warnings.scan, warnings.nodules) == (warnings_at(*points).scan, warnings_at(*points).nodules)
    assert any("look like RAS" in warning for warning in warnings.scan)


def test_predict_prints_and_keeps_each_warning_as_one_line(tmp_path, monkeypatch, caplog):
    from nodulemc.commands import predict

    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: MeanOfPatch())
    ct, points, output = (tmp_path / name for name in ("ct.mha", "p.json", "out.json"))
    sitk.WriteImage(CHEST.image, str(ct))
    points.write_text(json.dumps({"points": [{"name": "n1", "point": [-160, -100, 0]}]}))
    with caplog.at_level(logging.WARNING):
        assert cli.main(["predict", str(ct), "--points", str(points), "--output", str(output)]) == 0
    (point,) = json.loads(output.read_text())["points"]
    assert OUTSIDE in point["warnings"]
    assert caplog.messages.count(f"nodule 'n1': {OUTSIDE}") == 1
    assert not any("\n" in message for message in caplog.messages)


@pytest.mark.heavy
def test_a_real_scans_nodules_pass_and_its_air_does_not(shared_data):
    volume = read_volume(shared_data / "lidc" / "scans" / "LIDC-IDRI-0003")
    # The centres of the readers' outlines, then air in front of the chest.
    nodules = ((72.0, 77.3, -191.1), (23.7, -47.6, -172.5), (-47.2, -29.9, -169.2), (73.8, 74.2, -213.6))
    assert warnings_at(*nodules, volume=volume).nodules == ((),) * 4
    assert words((0.0, -190.0, -200.0), volume=volume) == [OUTSIDE]
    assert "look like RAS" in said_of([(-x, -y, z) for x, y, z in nodules], volume)


def test_looking_costs_no_more_than_a_few_ms():
    patch = extract_patch(CHEST, SOLID)
    surroundings(patch)
    start = time.process_time()
    for _ in range(20):
        surroundings(patch)
    assert (time.process_time() - start) / 20 < 0.01
