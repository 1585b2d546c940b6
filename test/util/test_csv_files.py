import csv
import io

import pandas as pd
import pytest

from nodulemc.errors import TableError
from nodulemc.util import csv_files
from nodulemc.util.csv_files import read_csv, write_csv_atomically


def rows_of(path, text):
    path.write_bytes(text.encode())
    header, rows = read_csv(path)
    return header, list(rows)


def test_line_breaks_in_cells_come_back(tmp_path):
    path = tmp_path / "t.csv"
    rows = [["a\rb", "c"], ["d\ne", 'f"g'], ["h\r\ni", "j,k"], ["ä", ""]]
    write_csv_atomically(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == rows
    assert path.read_bytes().endswith("\nä,\n".encode())


def test_rows_have_the_lines_they_end_on(tmp_path):
    header, rows = rows_of(tmp_path / "t.csv", '\ufeffa,b\r\n\r\n1,2\n\n\n"3\n",4\n5,6')
    assert header == ["a", "b"]
    assert rows == [(3, ["1", "2"]), (7, ["3\n", "4"]), (8, ["5", "6"])]


def test_an_empty_file_has_no_header_and_no_rows(tmp_path):
    assert rows_of(tmp_path / "t.csv", "") == ([], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n\n1,2,3\n", r"3 cells: .*t\.csv, line 3: the header names 2 columns"),
        ("a,b\n1\n", r"1 cell: .*t\.csv, line 2"),
        ('a,b\n1,"2\n3,4\n', "cannot read the table"),
        ('a,b\n1,"2"3\n', "cannot read the table"),
    ],
)
def test_a_malformed_row_is_refused(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        rows_of(tmp_path / "t.csv", text)


def test_more_rows_than_allowed_are_refused_where_they_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "MAX_TABLE_ROWS", 2)
    assert len(rows_of(tmp_path / "t.csv", "a\n1\n2\n")[1]) == 2
    with pytest.raises(TableError, match="more than 2 rows"):
        rows_of(tmp_path / "t.csv", "a\n1\n2\n3\n1,2\n")


TABLE = pd.DataFrame(
    {"AnnotationID": ["a", "b, c"], "CoordX": [1.5, -2.25], "CoordY": [0.5, 1e-3], "note": ["", "d;e"]}
)


def as_text(**options) -> str:
    return TABLE.to_csv(index=False, **options)


@pytest.mark.parametrize(
    "content",
    [
        as_text().encode(),
        as_text().encode("utf-8-sig"),
        as_text().encode("utf-16"),
        as_text(lineterminator="\r\n").encode(),
        as_text(lineterminator="\r").encode(),
        as_text(sep=";").encode(),
        as_text(sep=";", decimal=",").encode(),
        as_text(sep="\t").encode("utf-16"),
        as_text(quoting=csv.QUOTE_ALL).encode(),
        as_text(quoting=csv.QUOTE_ALL).replace(',"', ', "').encode(),
        ("sep=;\r\n" + as_text(sep=";")).encode(),
        ("\n \n,,,\n" + as_text()).encode(),
        as_text().replace("AnnotationID", " AnnotationID\xa0").encode(),
        as_text().replace(",CoordX", ", CoordX").encode(),
        as_text().replace("\n", ",,\n").encode() + b",,,,,\n , ,\n",
        as_text().replace("1.5,", " 1.5 ,").encode(),
    ],
)
def test_a_table_is_the_same_however_it_is_written(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    header, rows = read_csv(path)
    assert header == list(TABLE.columns)
    expected = pd.read_csv(io.StringIO(as_text()), dtype=str, keep_default_na=False)
    assert [cells for _, cells in rows] == expected.to_numpy().tolist()


def test_the_index_that_pandas_writes_is_left_out(tmp_path):
    header, rows = rows_of(tmp_path / "t.csv", TABLE.to_csv())
    assert header == list(TABLE.columns)
    assert [cells[0] for _, cells in rows] == ["a", "b, c"]


def test_columns_are_separated_by_what_the_header_has_most_of(tmp_path):
    assert rows_of(tmp_path / "t.csv", 'x;y;"a,b,c,d"\n1;2;3\n')[0] == ["x", "y", "a,b,c,d"]
    assert rows_of(tmp_path / "t.csv", "a, b and; c\n1,2\n") == (["a", "b and; c"], [(2, ["1", "2"])])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,x,y,,\nn,1,5,2,5\n", r"5 cells: .*t\.csv, line 2: the header names 3 columns"),
        ("a;x;y\nn;1,5;2.5\n", r"decimal points and decimal commas in one table, last in 2\.5: .*t\.csv, line 2"),
        ("a;x;y\nn;1,5;2\nm;1;2.5\n", r"decimal points and decimal commas .*t\.csv, line 3"),
        ("a;x;y\nn;1.234,5;2\n", r"decimal points and decimal commas .*t\.csv, line 2"),
        ("a;x;y\nn;1,5\n", r"2 cells: .*t\.csv, line 2"),
    ],
)
def test_what_may_mean_other_numbers_is_refused(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        rows_of(tmp_path / "t.csv", text)


def test_commas_stay_in_words(tmp_path):
    text = "name;x;remark\n1,5;2,5;3,5\n"
    assert rows_of(tmp_path / "t.csv", text)[1] == [(2, ["1,5", "2.5", "3,5"])]


def test_a_million_empty_rows_are_no_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "MAX_TABLE_ROWS", 2)
    assert rows_of(tmp_path / "t.csv", "a,b\n1,2\n" + ",\n" * 1000)[1] == [(2, ["1", "2"])]
