"""RTSTRUCTs as planning systems write them, against closed forms of polygons."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import make_ct, rotation
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from segmentations import FRAME_OF_REFERENCE, contour, write_rtstruct

from nodulemc.ct.volume import Volume
from nodulemc.errors import PointsError
from nodulemc.points.reading import read_points

CT = make_ct()
VOLUME = Volume(CT, Path("ct"), frame_of_reference=FRAME_OF_REFERENCE)
START = np.array([0.0, 40.0, -110.0])  # inside the CT, and so is what lies 20 mm further
SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]])


def at(outline: Sequence, height: float, turn: np.ndarray | None = None) -> np.ndarray:
    """Points of a plane (N, 2) at a height over START, turned around it: (N, 3)."""
    points = np.column_stack([outline, np.full(len(outline), height)])
    return (points if turn is None else points @ turn.T) + START


def points_of(path: Path) -> dict[str, np.ndarray]:
    return {nodule.name: np.array(nodule.point) - START for nodule in read_points(path, VOLUME)}


def prism(*outlines: Sequence, heights: Sequence[float] = (0, 1.5, 3), turn: np.ndarray | None = None) -> list[Dataset]:
    return [contour(at(outline, height, turn)) for height in heights for outline in outlines]


def test_an_extruded_polygon(tmp_path):
    """An L of three squares of 5 mm, and a triangle; closed forms."""
    ell = [(0, 0), (10, 0), (10, 5), (5, 5), (5, 10), (0, 10)]
    path = write_rtstruct(tmp_path / "r.dcm", [("ell", prism(ell)), ("Lungenherd ä", prism([(0, 0), (0, 9), (12, 0)]))])
    found = points_of(path)
    np.testing.assert_allclose(found["ell"], [12.5 / 3, 12.5 / 3, 1.5], atol=1e-9)
    np.testing.assert_allclose(found["Lungenherd ä"], [4, 3, 1.5], atol=1e-9)


def test_slices_weigh_by_their_areas(tmp_path):
    contours = [contour(at(SQUARE, 0)), contour(at(SQUARE * 0.5, 2)), contour(at(SQUARE * 0.2, 4)[::-1])]
    expected = np.average([[5, 5, 0], [2.5, 2.5, 2], [1, 1, 4]], axis=0, weights=[100, 25, 4])
    np.testing.assert_allclose(
        points_of(write_rtstruct(tmp_path / "r.dcm", [("a", contours)]))["a"], expected, atol=1e-9
    )


HOLE = np.array([[1, 1], [5, 1], [5, 5], [1, 5]])
KEYHOLE = [*SQUARE, (0, 0), *HOLE[[0, 3, 2, 1, 0]]]


@pytest.mark.parametrize("turn", [None, rotation(4, -3, 30), rotation(90, 0, 0)])
@pytest.mark.parametrize("outlines", [(SQUARE, HOLE), (SQUARE, HOLE[::-1]), (HOLE, SQUARE[::-1]), (KEYHOLE,)])
def test_holes_are_cut_out(tmp_path, outlines, turn):
    """Whichever way round they are drawn; in oblique planes, too."""
    expected = np.array([(100 * 5 - 16 * 3) / 84, (100 * 5 - 16 * 3) / 84, 1.5])
    found = points_of(write_rtstruct(tmp_path / "r.dcm", [("a", prism(*outlines, turn=turn))]))["a"]
    np.testing.assert_allclose(found, expected if turn is None else turn @ expected, atol=2e-6)


def test_an_island_in_a_hole_and_a_second_part_count(tmp_path):
    island, beside = HOLE * 0.25 + 2, SQUARE * 0.5 + (14, 0)
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE, HOLE, island, beside))])
    parts = [(100, (5, 5)), (-16, (3, 3)), (1, (2.75, 2.75)), (25, (16.5, 2.5))]
    expected = np.average([centre for _, centre in parts], axis=0, weights=[area for area, _ in parts])
    np.testing.assert_allclose(points_of(path)["a"], [*expected, 1.5], atol=1e-9)


def test_what_two_contours_share_is_outside(tmp_path):
    shared = np.array([[5, 0], [10, 0], [10, 10], [5, 10]])
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE, SQUARE + (5, 0)))])
    np.testing.assert_allclose(points_of(path)["a"], [7.5, 5, 1.5], atol=1e-9)
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE, shared))])
    np.testing.assert_allclose(points_of(path)["a"], [2.5, 5, 1.5], atol=1e-9)


def test_an_ellipsoid(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = np.column_stack([6 * np.cos(angles), 8 * np.sin(angles)])
    heights = np.arange(-6.75, 7, 0.5)
    contours = [contour(at(circle * np.sqrt(1 - (h / 7) ** 2) + (8, 9), h + 10)) for h in heights]
    np.testing.assert_allclose(
        points_of(write_rtstruct(tmp_path / "r.dcm", [("a", contours)]))["a"], [8, 9, 10], atol=1e-6
    )


def test_points_are_nodules_of_their_own(tmp_path):
    marks = [contour(at([(x, 2)], 3), "POINT") for x in (1, 7)]
    found = points_of(write_rtstruct(tmp_path / "r.dcm", [("one", marks[:1]), ("two", marks)]))
    assert list(found) == ["one", "two-1", "two-2"]
    np.testing.assert_allclose(list(found.values()), [[1, 2, 3], [1, 2, 3], [7, 2, 3]], atol=1e-9)


@pytest.mark.parametrize("outline", [[(1, 2)], [(0, 2), (2, 2)], [(0, 2), (1, 2), (2, 2)]])
def test_contours_without_an_area_are_where_their_points_are(tmp_path, outline):
    found = points_of(write_rtstruct(tmp_path / "r.dcm", [("a", [contour(at(outline, 3))])]))["a"]
    np.testing.assert_allclose(found, [1, 2, 3], atol=1e-9)


def test_empty_rois_are_left_out_and_names_stay_apart(tmp_path, caplog):
    rois = [("GTV", prism(SQUARE)), ("empty", []), ("GTV", prism(SQUARE + 1)), ("", prism(SQUARE + 2))]
    assert list(points_of(write_rtstruct(tmp_path / "r.dcm", rois))) == ["GTV-1", "GTV-2", "4"]
    assert "ROI 'empty' has no contours" in caplog.text


def test_a_ring_is_said_to_be_one(tmp_path, caplog):
    points_of(
        write_rtstruct(tmp_path / "r.dcm", [("ring", prism(SQUARE, SQUARE * 0.5 + 2.5)), ("disc", prism(SQUARE))])
    )
    (said,) = caplog.messages
    assert "nodule 'ring': its centre of mass lies outside" in said


def test_a_deflated_file_is_read(tmp_path):
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE))])
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    np.testing.assert_allclose(points_of(path)["a"], [5, 5, 1.5], atol=1e-9)


def test_frames_of_reference_are_checked(tmp_path, caplog):
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE))], "9.8.7")
    with pytest.raises(PointsError, match=r"frame of reference is '9\.8\.7', and the CT's is '1\.2\.3'"):
        points_of(path)
    points_of(write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE))], None))
    assert "cannot be checked: r.dcm states no frame of reference" in caplog.text
    data = pydicom.dcmread(path)
    general = Dataset()
    general.FrameOfReferenceUID = "9.8.6"
    data.ReferencedFrameOfReferenceSequence = [general]
    data.save_as(path)
    with pytest.raises(PointsError, match=r"frame of reference is '9\.8\.6'"):
        points_of(path)


TILTED = np.column_stack([SQUARE, [0, 2, 0, 0]]) + START


@pytest.mark.parametrize(
    ("contours", "message"),
    [
        ([contour(at(SQUARE, 0), "OPEN_PLANAR")], "contours of type 'OPEN_PLANAR'"),
        ([contour(TILTED)], "not in parallel planes"),
        (prism(SQUARE, heights=(-800, -790)), r"outside the CT, by \d+ mm"),
        (prism(SQUARE * 40), r"the contours enclose 0\.7 litres|outside the CT"),
        (prism(SQUARE * 60), r"the contours enclose 1\.6 litres"),
        ([], "nothing is segmented"),
        ([contour(np.array([[1e7, 1, 2], [1, 2, 3], [3, 4, 5]]))], "damaged"),
    ],
)
def test_unusable_contours_are_refused(tmp_path, contours, message):
    with pytest.raises(PointsError, match=message):
        points_of(write_rtstruct(tmp_path / "r.dcm", [("a", contours)]))


def test_the_work_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("nodulemc.points.rtstruct.MAX_CROSSINGS", 3)
    with pytest.raises(PointsError, match="too rough"):
        points_of(write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE))]))
    monkeypatch.setattr("nodulemc.points.dicom.MAX_OUTLINE_BYTES", 1 << 8)
    with pytest.raises(PointsError, match="more than 0 MiB"):
        points_of(tmp_path / "r.dcm")


def test_a_damaged_file_is_refused(tmp_path):
    path = write_rtstruct(tmp_path / "r.dcm", [("a", prism(SQUARE))])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PointsError):
        points_of(path)
    path.write_bytes(b"")
    with pytest.raises(PointsError, match="no SEG or RTSTRUCT"):
        points_of(path)
    with pytest.raises(PointsError, match="cannot read the file"):
        points_of(tmp_path / "none.dcm")
