import json
from pathlib import Path

import pytest
from conftest import make_ct

from nodulemc.errors import PointsError
from nodulemc.points import Nodule, read_points, scan_name
from nodulemc.volume import Volume

UID = "1.2.840.113654.2.55.323804676332963457174235140303454945005"


@pytest.fixture
def volume():
    return Volume(make_ct(size=(8, 8, 8)), Path(f"/data/{UID}.mha"))


def written(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_platform_example_is_read_as_it_is(shared_data, volume):
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
    with pytest.raises(PointsError, match=r"p\.json"):
        read_points(file, volume)


def test_missing_column_and_unknown_type_are_refused(tmp_path, volume):
    with pytest.raises(PointsError, match="columns missing: CoordZ"):
        read_points(written(tmp_path / "t.csv", "AnnotationID,CoordX,CoordY\n"), volume)
    with pytest.raises(PointsError, match="unknown points file type"):
        read_points(written(tmp_path / "t.txt", ""), volume)
    with pytest.raises(PointsError, match="cannot read"):
        read_points(tmp_path / "none.csv", volume)


def test_scan_name_keeps_the_dots_of_a_uid():
    assert scan_name(Path("/a/1.2.840.5.mha")) == "1.2.840.5"
    assert scan_name(Path("1.2.nii.gz")) == "1.2"
