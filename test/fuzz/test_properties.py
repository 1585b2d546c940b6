"""Properties that hold for every input: geometry against SimpleITK's resampling, points files against the written."""

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from nodulemc.ct.volume import Volume
from nodulemc.errors import NoduleMCError
from nodulemc.output.multiple_points import multiple_points
from nodulemc.patch import extract_patch
from nodulemc.points.reading import Nodule, from_grand_challenge, read_points
from nodulemc.prediction import NodulePrediction
from nodulemc.util.json_files import read_json

VOLUME = Volume(sitk.Image([8, 8, 8], sitk.sitkInt16), Path("1.2.3.mha"))
coordinates = st.floats(-1e6, 1e6, allow_subnormal=False)
points = st.tuples(coordinates, coordinates, coordinates)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def scans(draw):
    """A CT of random voxels, size, spacing, origin and rotation, mirrored or not, and a point in or near it."""
    size = [draw(st.integers(2, 40)) for _ in range(3)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = sitk.GetImageFromArray(rng.integers(-1000, 1500, size[::-1], dtype=np.int16))
    image.SetSpacing([draw(st.floats(0.3, 5)) for _ in range(3)])
    image.SetOrigin([draw(st.floats(-500, 500)) for _ in range(3)])
    quaternion = rng.normal(size=4)
    turn = sitk.VersorRigid3DTransform()
    turn.SetRotation((quaternion / np.linalg.norm(quaternion)).tolist())
    mirror = np.diag([draw(st.sampled_from([1.0, -1.0])), 1.0, 1.0])
    image.SetDirection((np.array(turn.GetMatrix()).reshape(3, 3) @ mirror).ravel().tolist())
    index = [draw(st.floats(-3, n + 2)) for n in size]
    return image, image.TransformContinuousIndexToPhysicalPoint(index)


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(scans())
def test_a_patch_is_what_simpleitk_resamples_from_the_whole_scan(scan):
    image, point = scan
    grid = sitk.Image(64, 64, 64, sitk.sitkFloat64)
    grid.SetSpacing([50 / 64] * 3)
    grid.SetOrigin([c - 31.5 * 50 / 64 for c in point])
    whole = sitk.Resample(sitk.Cast(image, sitk.sitkFloat64), grid, sitk.Transform(), sitk.sitkLinear, -1000.0)
    expected = np.clip((sitk.GetArrayFromImage(whole) + 1000) / 1400, 0, 1)
    patch = extract_patch(Volume(image, Path("ct")), point)
    # A sample within rounding of the scan's outer face may fall on either side of it.
    assert np.isclose(patch, expected, atol=2e-4).mean() > 0.999


@pytest.mark.heavy
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.none() | names, points), max_size=5))
def test_grand_challenge_points_come_back_as_they_were_written(nodules):
    written = multiple_points([NodulePrediction(Nodule(name, point), 0.5, (0.5,)) for name, point in nodules])
    text = json.dumps(written)
    assert [(n.name, n.point) for n in from_grand_challenge(json.loads(text), "")] == nodules


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names, points), max_size=5))
def test_csv_points_come_back_as_they_were_written(nodules):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["CoordZ", "AnnotationID", "CoordX", "CoordY"])
    writer.writerows([z, name, x, y] for name, (x, y, z) in nodules)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.getvalue().encode())
        read = read_points(path, VOLUME)
    # Blanks around a cell are a spreadsheet's, and an empty cell is no name.
    assert [(n.name, n.point) for n in read] == [(name.strip(" \t\xa0") or None, point) for name, point in nodules]


@pytest.mark.heavy
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names, points), max_size=5), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_a_spreadsheet_with_decimal_commas_gives_the_same_points(nodules, columns, rows, byte_order_mark):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["name", "x", "y", "z", *[""] * columns])
    writer.writerows([name, *(f"{c!r}".replace(".", ",") for c in point), *[""] * columns] for name, point in nodules)
    writer.writerows([[""] * (4 + columns)] * rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.getvalue().encode("utf-8-sig" if byte_order_mark else "utf-8"))
        read = read_points(path, VOLUME)
    assert [(n.name, n.point) for n in read] == [(name.strip(" \t\xa0") or None, point) for name, point in nodules]


triples = st.lists(json_values, min_size=3, max_size=3)
entries = st.fixed_dictionaries({"name": json_values, "point": json_values | triples})
files = json_values | st.fixed_dictionaries({"points": json_values | st.lists(entries, max_size=3)})


@pytest.mark.heavy
@settings(max_examples=200, deadline=None)
@given(files)
def test_any_json_is_read_as_finite_points_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.json"
        path.write_text(json.dumps(content))
        try:
            nodules = from_grand_challenge(read_json(path), path)
        except NoduleMCError:
            return
    assert all(np.isfinite(n.point).all() and len(n.point) == 3 for n in nodules)
    assert len(nodules) == len(content["points"])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_as_csv_is_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(NoduleMCError):
            read_points(path, VOLUME)
