import csv

import pytest

from nodulemc import csv_files
from nodulemc.csv_files import read_csv, write_csv_atomically
from nodulemc.errors import CaseError, TableError


def rows_of(path, text):
    path.write_bytes(text.encode())
    header, rows = read_csv(path, TableError)
    return header, list(rows)


def test_line_breaks_in_cells_come_back(tmp_path):
    path = tmp_path / "t.csv"
    rows = [["a\rb", "c"], ["d\ne", 'f"g'], ["h\r\ni", "j,k"], ["ä", ""]]
    write_csv_atomically(path, rows, CaseError)
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
        ("a,b\n1\n", r"1 cells: .*t\.csv, line 2"),
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
