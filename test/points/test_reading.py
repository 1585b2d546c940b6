import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import MeanOfPatch
from conftest import centre_of, make_ct

from nodulemc import predict
from nodulemc.ct.volume import Volume
from nodulemc.errors import FileError, PointsError, TableError
from nodulemc.points.reading import Nodule, read_points, scan_name

UID = "1.2.840.113654.2.55.323804676332963457174235140303454945005"


@pytest.fixture
def volume():
    return Volume(make_ct(size=(8, 8, 8)), Path(f"/data/{UID}.mha"))


def written(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_grand_challenge_example_is_read_as_it_is(shared_data, volume):
    nodules = read_points(shared_data / "grand_challenge" / "nodule-locations.json", volume)
    assert nodules == [
        Nodule("123456_1_19990102", (-64.78, 64.5, -52.46)),
        Nodule("123456_2_19990102", (-78.49, 79.86, -152.83)),
    ]


def test_luna25_rows_of_this_scan_only(shared_data, volume):
    nodules = read_points(shared_data / "luna25" / "luna25_training.csv", volume)
    assert nodules == [Nodule("100570_1_19990102", (61.14, -163.28, -177.75))]


def test_csv_of_other_scans_is_refused(tmp_path, volume):
    rows = f"AnnotationID,SeriesInstanceUID,CoordX,CoordY,CoordZ\na,1.2,1,2,3\nb,{UID}9,1,2,3\n"
    with pytest.raises(PointsError, match="no row has the SeriesInstanceUID"):
        read_points(written(tmp_path / "t.csv", rows), volume)


def test_csv_of_one_scan_of_another_name_is_taken_with_a_warning(tmp_path, volume, caplog):
    rows = "AnnotationID,SeriesInstanceUID,CoordX,CoordY,CoordZ\na,1.2,1,2,3\nb,1.2,4,5,6\n"
    nodules = read_points(written(tmp_path / "t.csv", rows), volume)
    assert [nodule.point for nodule in nodules] == [(1, 2, 3), (4, 5, 6)]
    assert "'1.2' is not the CT's" in caplog.text


def test_csv_without_series_column_is_taken_whole(tmp_path, volume):
    table = written(tmp_path / "t.csv", "\ufeffAnnotationID,CoordX,CoordY,CoordZ\nb,1.5,-2,3e1\na,0,0,0\n")
    assert read_points(table, volume) == [Nodule("b", (1.5, -2.0, 30.0)), Nodule("a", (0.0, 0.0, 0.0))]


@pytest.mark.parametrize(("system", "expected"), [("LPS", (1, 2, 3)), ("RAS", (-1, -2, 3)), (0, (-1, -2, 3))])
def test_slicer_markups_honour_their_coordinate_system(tmp_path, volume, system, expected):
    markup = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "controlPoints": [{"label": "F-1", "position": [1, 2, 3], "positionStatus": "defined"}],
    }
    file = written(tmp_path / "n.mrk.json", {"markups": [markup]})
    assert read_points(file, volume) == [Nodule("F-1", expected)]


@pytest.mark.parametrize("name", ["n.json", "n.mrk.json", "N.JSON"])
def test_slicer_markups_are_known_by_their_content(tmp_path, volume, name):
    markup = {"type": "Fiducial", "controlPoints": [
        {"label": "F-1", "position": [1, 2, 3], "selected": False, "visibility": False}, {"position": [4, 5, 6]}
    ]}  # fmt: skip
    expected = [Nodule("F-1", (1, 2, 3)), Nodule(None, (4, 5, 6))]
    assert read_points(written(tmp_path / name, {"markups": [markup]}), volume) == expected


def test_a_file_of_two_kinds_is_refused(tmp_path, volume):
    with pytest.raises(PointsError, match="both points and markups"):
        read_points(written(tmp_path / "n.json", {"markups": [], "points": []}), volume)


@pytest.mark.parametrize(
    "change",
    [{"type": "Line"}, {"coordinateUnits": "um"}, {"coordinateSystem": "IJK"}, {"controlPoints": 3},
     {"controlPoints": [{"label": "F", "position": [0, 0, 0], "positionStatus": "undefined"}]}],
)  # fmt: skip
def test_unusable_slicer_markups_are_refused(tmp_path, volume, change):
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": []} | change
    with pytest.raises(PointsError):
        read_points(written(tmp_path / "n.mrk.json", {"markups": [markup]}), volume)


@pytest.mark.parametrize(
    "point", ["[1, 2]", "[1, 2, 3, 4]", '[1, 2, "3"]', "[1, 2, null]", "[1, true, 3]", "null", '"1 2 3"', "{}",
              "[1, 2, 1e308]", f"[1, 2, {10**400}]"]
)  # fmt: skip
def test_a_point_that_is_not_three_finite_numbers_is_refused(tmp_path, volume, point):
    file = written(tmp_path / "p.json", f'{{"points": [{{"name": "n1", "point": {point}}}]}}')
    with pytest.raises(PointsError, match=r"the point of nodule .n1. is .*p\.json: give three finite numbers"):
        read_points(file, volume)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf"])
def test_a_csv_coordinate_that_is_no_finite_number_names_its_line(tmp_path, volume, value):
    table = written(tmp_path / "t.csv", f"AnnotationID,CoordX,CoordY,CoordZ\na,1,2,3\nb,1,2,{value}\n")
    with pytest.raises(PointsError, match=r"nodule 'b'.*t\.csv, line 3"):
        read_points(table, volume)


def test_a_csv_line_is_counted_after_blank_ones(tmp_path, volume):
    table = written(tmp_path / "t.csv", "AnnotationID,CoordX,CoordY,CoordZ\n\n\na,1,2,x\n")
    with pytest.raises(PointsError, match=r"t\.csv, line 4"):
        read_points(table, volume)


def test_a_csv_of_more_nodules_than_allowed_is_read_no_further(tmp_path, volume):
    rows = "a,1.2,1,2,3\n" * 1001
    with pytest.raises(PointsError, match="more than 1000 nodules"):
        read_points(written(tmp_path / "t.csv", f"AnnotationID,CoordX,CoordY,CoordZ,x\n{rows}broken\n"), volume)
    own = rows.replace("1.2", UID)
    table = "AnnotationID,SeriesInstanceUID,CoordX,CoordY,CoordZ\n"
    with pytest.raises(PointsError, match="more than 1000 nodules"):
        read_points(written(tmp_path / "t.csv", f"{table}{own}broken\n"), volume)
    with pytest.raises(PointsError, match="more than 1000 nodules"):
        read_points(written(tmp_path / "t.csv", table + rows), volume)
    assert len(read_points(written(tmp_path / "t.csv", f"{table}{rows}b,{UID},1,2,3\n"), volume)) == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"points": {}}', '{"points": [7]}', '{"points": [{"name": 7, "point": [1, 2, 3]}]}',
     '{"points": [{"name": "a", "point": [NaN, 2, 3]}]}', '{"points": [], "points": []}', "[" * 100_000, "\udcff"],
)  # fmt: skip
def test_malformed_json_is_refused(tmp_path, volume, text):
    file = tmp_path / "p.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises((FileError, PointsError), match=r"p\.json"):
        read_points(file, volume)


def test_missing_column_and_unknown_type_are_refused(tmp_path, volume):
    with pytest.raises(PointsError, match="columns missing: CoordZ"):
        read_points(written(tmp_path / "t.csv", "AnnotationID,CoordX,CoordY\n"), volume)
    with pytest.raises(PointsError, match="unknown points file type"):
        read_points(written(tmp_path / "t.txt", ""), volume)
    with pytest.raises(FileError, match="cannot read"):
        read_points(tmp_path / "none.csv", volume)


def test_scan_name_keeps_the_dots_of_a_uid():
    assert scan_name(Path("/a/1.2.840.5.mha")) == "1.2.840.5"
    assert scan_name(Path("1.2.nii.gz")) == "1.2"


FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
"""


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("1", 1), ("RAS", -1), ("0", -1)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_slicers_fcsv(tmp_path, volume, system, sign, end):
    lines = (
        "vtkMRMLMarkupsFiducialNode_0,1.5,-2,3e1,0,0,0,1,1,1,0,F-1,,vtkMRMLScalarVolumeNode1\n\n"
        # hidden and not selected; a label with a comma
        '2,-4,5,6,0,0,0,1,0,0,1,"right, upper ""a""",a remark,\n'
        # Slicer 5 adds the position's state
        "3,7,8,9,1,0,0,0,1,1,0,,,,2,0\n"
    )
    text = (FCSV.format(system) + lines).replace("\n", end)
    (tmp_path / "n.fcsv").write_bytes(text.encode())
    assert read_points(tmp_path / "n.fcsv", volume) == [
        Nodule("F-1", (sign * 1.5, sign * -2.0, 30.0)),
        Nodule('right, upper "a"', (sign * -4.0, sign * 5.0, 6.0)),
        Nodule(None, (sign * 7.0, sign * 8.0, 9.0)),
    ]


ROW = "1,1,2,3,0,0,0,1,1,1,0,F-1,,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FCSV.format("IJK") + ROW, "the coordinate system is 'IJK': .*give a line '# CoordinateSystem = LPS'"),
        (FCSV.format("2") + ROW, "the coordinate system is '2'"),
        (f"# Fiducial List file\n{ROW}", "the coordinate system is not stated"),
        (FCSV.format("LPS") + f"# CoordinateSystem = RAS\n{ROW}", "the coordinate system is 'LPS, RAS'"),
        ("# CoordinateSystem = RAS\n# columns = label,x,y,z,sel,vis\nF,1,2,3,1,1\n", "the columns are 'label,x,"),
        # decimal commas, in one, two and three coordinates
        (FCSV.format("LPS") + ROW.replace("1,2,3", "1,5,2,3"), r"no point in 15 cells: .*n\.fcsv, line 4"),
        (FCSV.format("LPS") + ROW.replace("1,2,3", "1,5,2,5,3"), r"no point in 16 cells"),
        (FCSV.format("LPS") + ROW.replace("1,2,3", "1,5,2,5,3,5"), r"no point in 17 cells"),
        (FCSV.format("LPS") + "F-1,1,2,3\n", "no point in 4 cells"),
        (FCSV.format("LPS") + f"{ROW},0,0", "point 1 has no defined position: .*line 4: place it or delete it"),
        (FCSV.format("LPS") + ROW.replace("1,2,3", "1,nan,3"), "the point of nodule 'F-1' is .*line 4"),
        (FCSV.format("LPS") + ROW.replace("F-1", '"F-1'), "cannot read the point"),
        (FCSV.format("LPS") + f"{ROW}\n" * 1001, "more than 1000 nodules"),
        ("\udcff", "cannot read the points"),
    ],
)
def test_an_fcsv_that_may_mean_other_points_is_refused(tmp_path, volume, text, message):
    (tmp_path / "n.fcsv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PointsError, match=message):
        read_points(tmp_path / "n.fcsv", volume)


FRAME = pd.DataFrame({"CoordX": [1.5, -3.0], "CoordY": [2.25, 4.0], "CoordZ": [-1e-3, 100.0]})
POINTS = [(1.5, 2.25, -0.001), (-3.0, 4.0, 100.0)]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({}, [None, None]),
        ({"AnnotationID": ["a", "b"]}, ["a", "b"]),
        ({"id": [7, 8]}, ["7", "8"]),
        ({"name": ["a", ""], "diameter_mm": [3, 4]}, ["a", None]),
        ({"seriesuid": [UID, UID], "class": [0, 1]}, [None, None]),
    ],
)
@pytest.mark.parametrize("coordinates", [("CoordX", "CoordY", "CoordZ"), ("coordX", "coordY", "coordZ"), tuple("xyz")])
@pytest.mark.parametrize("options", [{}, {"sep": ";"}, {"sep": ";", "decimal": ","}, {"sep": "\t"}])
def test_coordinates_by_any_name(tmp_path, volume, columns, names, coordinates, options):
    frame = FRAME.set_axis(coordinates, axis=1).assign(**columns)
    frame.to_csv(tmp_path / "t.csv", index=False, **options)
    assert [(n.name, n.point) for n in read_points(tmp_path / "t.csv", volume)] == list(zip(names, POINTS, strict=True))


def test_coordinates_twice_are_refused(tmp_path, volume):
    header = "AnnotationID,CoordX,CoordY,CoordZ,x,y,z"
    with pytest.raises(PointsError, match=r"columns are ambiguous; found AnnotationID, CoordX, .*each once"):
        read_points(written(tmp_path / "t.csv", f"{header}\na,1,2,3,4,5,6\n"), volume)
    with pytest.raises(PointsError, match="columns repeated: CoordX; found coordX,"):
        read_points(written(tmp_path / "t.csv", "coordX,CoordX,CoordY,CoordZ\n1,1,2,3\n"), volume)


@pytest.mark.parametrize("column", ["ct", "path", "scan"])
def test_rows_of_other_scans_paths_are_left_out(tmp_path, column, caplog):
    ct = tmp_path / "a" / "ct.mha"
    rows = [f"{place},1,2,{k}" for k, place in enumerate(("a/ct.mha", "b/ct.mha", "./a//ct.mha", str(ct)))]
    table = written(tmp_path / "m.csv", "\n".join([f"{column},x,y,z", *rows]))
    volume = Volume(make_ct(size=(8, 8, 8)), ct)
    assert [nodule.point[2] for nodule in read_points(table, volume)] == [0, 2, 3]
    with pytest.raises(PointsError, match=f"no row has the {column} .*c/ct.mha"):
        read_points(table, Volume(volume.image, tmp_path / "c" / "ct.mha"))
    one = written(tmp_path / "one.csv", f"{column},x,y,z\nelsewhere,1,2,3\n")
    assert len(read_points(one, volume)) == 1
    assert f"its one {column} 'elsewhere' is not the CT's" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda points: np.array(points),
        lambda points: np.array(points, np.float32),
        lambda points: list(np.array(points)),
        lambda points: [tuple(np.array(point)) for point in points],
        lambda points: [list(np.array(point, np.float32)) for point in points],
        lambda points: [Nodule("n", np.array(point)) for point in points],
        lambda points: pd.DataFrame(points).to_numpy(),
        lambda points: (point for point in points),
    ],
)
def test_arrays_are_points(make):
    """Quarters are the same in single precision."""
    image = make_ct()
    centre = np.round(np.array(centre_of(image)) * 4) / 4
    points = (centre + [[0, 0, 0], [2, -1, 3]]).tolist()
    found, expected = (predict(image, given, MeanOfPatch()) for given in (make(points), points))
    assert [(p.nodule.point, p.probability) for p in found] == [(p.nodule.point, p.probability) for p in expected]
    assert all(type(c) is float for p in found for c in p.nodule.point)


def test_whole_numbers_and_no_rows():
    image = make_ct()
    assert predict(image, np.empty((0, 3)), MeanOfPatch()) == []
    rounded = np.rint(centre_of(image)).astype(np.int16)
    (found,) = predict(image, rounded[None], MeanOfPatch())
    assert found.nodule.point == tuple(rounded.tolist())


@pytest.mark.parametrize(
    "points",
    [np.zeros(3), np.zeros((2, 2)), np.full((1, 3), np.nan), np.zeros((1, 3), bool), np.zeros((1, 1, 3)),
     np.array([["a", "b", "c"]]), [Nodule("n", (0, 0, "0"))]],
)  # fmt: skip
def test_arrays_of_another_shape_or_kind_are_refused(points):
    with pytest.raises(PointsError, match=r"the point of nodule .* give three finite numbers"):
        predict(make_ct(), points, MeanOfPatch())


def test_names_that_pandas_has_made_floats(tmp_path, volume):
    """As the other commands read them; names of several kinds stay as they are."""
    frame = pd.DataFrame({"AnnotationID": [1, None, 12], "CoordX": 1.0, "CoordY": 2.0, "CoordZ": 3.0})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert [nodule.name for nodule in read_points(tmp_path / "t.csv", volume)] == ["1", None, "12"]
    table = written(tmp_path / "t.csv", "name,x,y,z\n1.0,1,2,3\nb,1,2,3\n")
    assert [nodule.name for nodule in read_points(table, volume)] == ["1.0", "b"]
    with pytest.raises(TableError, match=r"AnnotationID is 1e\+16, a rounded number: .*t\.csv, line 3: store"):
        read_points(written(tmp_path / "t.csv", "name,x,y,z\n1.0,1,2,3\n1e+16,1,2,3\n"), volume)


def test_scans_that_pandas_has_made_floats(tmp_path, volume):
    frame = pd.DataFrame({"SeriesInstanceUID": [7, None, 8], "x": [1.0, 2.0, 3.0], "y": 2.0, "z": 3.0})
    frame.to_csv(tmp_path / "t.csv", index=False)
    ct = Volume(volume.image, tmp_path / "8.mha")
    assert [nodule.point for nodule in read_points(tmp_path / "t.csv", ct)] == [(3, 2, 3)]
