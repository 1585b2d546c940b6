from pathlib import Path

import pandas as pd
import pytest
from training.luna25_files import table_row, write_table

from nodulemc.errors import TableError
from nodulemc.training.tables import read_table


def rows() -> list[dict]:
    return [table_row(1, "1.2", 1, (1.5, -2, 3), 1, note="x, y"), table_row(2, "1.3", 1, (4, 5, 6), 0, note="")]


def test_real_tables_are_read_whole(shared_data: Path):
    folder = shared_data / "luna25"
    masked = read_table(folder / "luna25_training.csv")
    assert len(masked) == 6157
    assert sum(row["label"] for row in masked.rows) == 554
    assert masked.rows[0] == {
        "PatientID": "100570",
        "SeriesInstanceUID": "1.2.840.113654.2.55.323804676332963457174235140303454945005",
        "StudyDate": "19990102",
        "CoordX": 61.14,
        "CoordY": -163.28,
        "CoordZ": -177.75,
        "LesionID": "1",
        "AnnotationID": "100570_1_19990102",
        "NoduleID": "100570_1",
        "label": 1,
        "Age_at_StudyDate": "63",
        "Gender": "Male",
    }
    assert len(read_table(folder / "luna25_public_training_development_data.csv")) == 6163


def test_unknown_columns_are_kept_as_text(tmp_path: Path):
    table = read_table(write_table(tmp_path / "t.csv", rows()))
    assert [row["note"] for row in table.rows] == ["x, y", ""]
    assert [where for _, where in table.located()] == [f"{tmp_path / 't.csv'}, line 2", f"{tmp_path / 't.csv'}, line 3"]


@pytest.mark.parametrize("options", [{}, {"sep": ";", "decimal": ","}, {"sep": "\t"}])
def test_other_names_and_a_spreadsheets_leftovers(options: dict, tmp_path: Path):
    columns = ["PatientID", "SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "AnnotationID", "label"]
    plain = read_table(write_table(tmp_path / "t.csv", rows()))
    frame = pd.DataFrame(plain.rows)[columns]
    frame.columns = ["patient_id", "seriesuid", "coordX", "coordY", "coordZ", "name", "Label"]
    frame.assign(empty="").rename(columns={"empty": ""}).to_csv(tmp_path / "other.csv", index=False, **options)
    with (tmp_path / "other.csv").open("a") as file:
        file.write(options.get("sep", ",") * 7 + "\n")
    expected = [{column: row[column] for column in columns} for row in plain.rows]
    assert read_table(tmp_path / "other.csv").rows == expected


def test_lines_are_those_of_the_file(tmp_path: Path):
    with_break = rows()
    with_break[0]["note"] = "two\nlines"
    with_break[1]["label"] = 2
    with pytest.raises(TableError, match=r"label is '2': .*t\.csv, line 4: write 0 \(benign\) or 1 \(malignant\)"):
        read_table(write_table(tmp_path / "t.csv", with_break))


@pytest.mark.parametrize(
    "column", ["PatientID", "SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "AnnotationID", "label"]
)
def test_missing_column(column: str, tmp_path: Path):
    without = [{name: value for name, value in row.items() if name != column} for row in rows()]
    with pytest.raises(TableError, match=rf"missing column {column}; found .*: .*t\.csv, line 1: "):
        read_table(write_table(tmp_path / "t.csv", without))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("AnnotationID", "1_1_19990102", r"duplicate AnnotationID 1_1_19990102: .*, line 3: line 2 has it, too"),
        ("AnnotationID", "", r"AnnotationID is '': .*, line 3: "),
        ("AnnotationID", "../1", r"AnnotationID is '\.\./1': .*, line 3: "),
        ("SeriesInstanceUID", "/etc/x", r"SeriesInstanceUID is '/etc/x': .*, line 3: "),
        ("PatientID", " ", r"PatientID is '': .*, line 3: "),
        ("label", "1.0", r"label is '1\.0': .*, line 3: "),
        ("label", "", r"label is '': .*, line 3: "),
        ("CoordX", "nan", r"CoordX is 'nan': .*, line 3: give a finite number in mm"),
        ("CoordY", "", r"CoordY is '': .*, line 3: "),
        ("CoordZ", "-inf", r"CoordZ is '-inf': .*, line 3: "),
        ("CoordZ", "1,5", r"CoordZ is '1,5': .*, line 3: "),
    ],
)
def test_bad_value_is_named_with_its_line(column: str, value: str, message: str, tmp_path: Path):
    bad = rows()
    bad[1][column] = value
    with pytest.raises(TableError, match=message):
        read_table(write_table(tmp_path / "t.csv", bad))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("Gender,note", "Gender,Gender"), "repeated column 'Gender': .*, line 1"),
        (lambda text: text.replace(",Female,\r\n", ",Female\r\n"), "12 cells: .*, line 3: the header names 13 columns"),
        (lambda text: text.splitlines()[0], "the table has no rows: .*"),
        (lambda text: "", "missing columns PatientID, .*"),
        (lambda text: text.replace('"x, y"', '"x, y'), "cannot read the table .*"),
    ],
)
def test_malformed_file(change, message: str, tmp_path: Path):
    path = write_table(tmp_path / "t.csv", rows())
    path.write_bytes(change(path.read_bytes().decode()).encode())
    with pytest.raises(TableError, match=message):
        read_table(path)


def test_unreadable_files(tmp_path: Path):
    (tmp_path / "latin.csv").write_bytes("PatientID,Größe".encode("latin-1"))
    for name in ("absent.csv", "latin.csv"):
        with pytest.raises(TableError, match=r"cannot read the (file|table)"):
            read_table(tmp_path / name)
