import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from training.luna25_files import table_row, write_table

from nodulemc.data.nodule_table import read_table
from nodulemc.errors import FileError, TableError
from nodulemc.ratings import HIGHEST, READERS, normalised_rating


def rows() -> list[dict]:
    return [table_row(1, "1.2", 1, (1.5, -2, 3), 1, note="x, y"), table_row(2, "1.3", 1, (4, 5, 6), 0, note="")]


@pytest.mark.heavy
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
    message = r"label is '2': .*t\.csv, line 4: write 0 \(benign\) or 1 \(malignant\), or nothing"
    with pytest.raises(TableError, match=message):
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
        ("label", "0.5", r"label is '0\.5': .*, line 3: "),
        ("label", "None", r"label is 'None': .*, line 3: "),
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
        with pytest.raises((FileError, TableError), match=r"cannot read the (file|table)"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("kind", ["cubes", "slabs"])
def test_labels_and_ratings_of_lidc(kind: str, shared_data: Path):
    """Undecided nodules have no label; pandas reads the same numbers."""
    path = shared_data / "lidc" / kind / "table.csv"
    rows, frame = read_table(path).rows, pd.read_csv(path)
    for column in ("label", READERS, *HIGHEST):
        values = [math.nan if row[column] is None else row[column] for row in rows]
        np.testing.assert_array_equal(values, frame[column].to_numpy(float), column)
    assert [row["label"] is None for row in rows] == (frame["malignancy"] == 3).tolist()
    assert rows[0]["diameter_mm"] == "31.0"


def test_ratings_are_read_where_readers_are_named(tmp_path: Path):
    given = [row | {"margin": margin} for row, margin in zip(rows(), ("smooth", ""), strict=True)]
    assert [row["margin"] for row in read_table(write_table(tmp_path / "words.csv", given)).rows] == ["smooth", ""]
    given = [row | {"Readers": 3, "Margin": margin} for row, margin in zip(rows(), ("4.25", ""), strict=True)]
    found = read_table(write_table(tmp_path / "numbers.csv", given)).rows
    assert [(row["readers"], row["margin"]) for row in found] == [(3.0, 4.25), (3.0, None)]
    assert normalised_rating(found[0], "margin") == 0.8125
    assert math.isnan(normalised_rating(found[1], "margin"))
    assert math.isnan(normalised_rating({"margin": "smooth"}, "margin"))
    assert [normalised_rating({"calcification": r}, "calcification") for r in (1.0, 6.0)] == [0, 1]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("readers", "0", "readers is '0': .*, line 3: give a number of 1 or more, or nothing"),
        ("texture", "0.99", "texture is '0.99': .*, line 3: give a number from 1 to 5, or nothing"),
        ("calcification", "6.01", "calcification is '6.01': .*, line 3: give a number from 1 to 6, or nothing"),
        ("margin", "smooth", "margin is 'smooth': .*, line 3: .*ratings are read where there is a column readers"),
    ],
)
def test_ratings_off_their_scale(column: str, value: str, message: str, tmp_path: Path):
    given = [row | {"readers": 4, column: 4} for row in rows()]
    given[1][column] = value
    with pytest.raises(TableError, match=message):
        read_table(write_table(tmp_path / "t.csv", given))


def test_decimals_that_pandas_makes_of_labels_with_gaps(tmp_path: Path):
    given = [*rows(), table_row(3, "1.4", 1, (4, 5, 6), None)]
    pd.DataFrame(given).to_csv(tmp_path / "t.csv", index=False)
    assert "1.0" in (tmp_path / "t.csv").read_text()
    assert [row["label"] for row in read_table(tmp_path / "t.csv").rows] == [1, 0, None]
