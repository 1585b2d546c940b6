import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from nodulemc.errors import TableError
from nodulemc.util.table_rows import read_rows, read_table


def cells_of(path, column: str) -> list[str]:
    return [row.cells[column] for row in read_rows(path, (column,))]


FRAME = pd.DataFrame(
    {"annotation_id": [100012119990102, None], "x": [1.0, -0.1], "label": [1, None], "PatientID": [7.0, 8.0]}
)


def test_parquet_and_csv_say_the_same(tmp_path):
    """pandas has made floats of the identifiers, which have a gap."""
    assert FRAME.dtypes.eq("float64").all()
    FRAME.to_parquet(tmp_path / "t.parquet")
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        header, rows = read_table(tmp_path / name, ("AnnotationID",))
        assert header == ["annotation_id", "x", "label", "PatientID"]
        assert [row.cells for row in rows] == [
            {"AnnotationID": "100012119990102", "CoordX": "1.0", "label": "1.0", "PatientID": "7"},
            {"AnnotationID": "", "CoordX": "-0.1", "label": "", "PatientID": "8"},
        ]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([2**63 - 1, None], pyarrow.int64(), [str(2**63 - 1), ""]),
        ([2**64 - 1, 1], pyarrow.uint64(), [str(2**64 - 1), "1"]),
        ([2.0**53 - 1, None], pyarrow.float64(), [str(2**53 - 1), ""]),
        ([2.0**24 - 1, 0.0], pyarrow.float32(), [str(2**24 - 1), "0"]),
        # These were never whole numbers, or never numbers.
        ([1.0, 1.5], pyarrow.float64(), ["1.0", "1.5"]),
        (["1.0", "b"], pyarrow.string(), ["1.0", "b"]),
        (["007", " 1.2 "], pyarrow.string(), ["007", "1.2"]),
    ],
)
def test_identifiers_keep_their_digits(tmp_path, values, kind, expected):
    table = pyarrow.table({"AnnotationID": pyarrow.array(values, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert cells_of(tmp_path / "t.parquet", "AnnotationID") == expected


def test_categories_are_their_values(tmp_path):
    pd.DataFrame(
        {"PatientID": pd.Categorical([7.0, np.nan, 7.0]), "label": pd.Categorical(["0", "1", "0"])}
    ).to_parquet(tmp_path / "t.parquet")
    assert cells_of(tmp_path / "t.parquet", "PatientID") == ["7", "", "7"]
    assert cells_of(tmp_path / "t.parquet", "label") == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2.0**53, pyarrow.float64()), (2.0**60, pyarrow.float64()), (2.0**24, pyarrow.float32())],
)
def test_identifiers_that_floats_have_rounded_are_refused(tmp_path, value, kind):
    table = pyarrow.table({"AnnotationID": pyarrow.array([1.0, value], kind), "CoordX": [2.0**60] * 2})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"AnnotationID is .*, a rounded number: .*t\.parquet, line 2: store ident"):
        read_rows(tmp_path / "t.parquet", ())


@pytest.mark.parametrize("text", ["1.00012E+14", "1e+16", "9007199254740992.0", "1.2345678901234568e+18"])
def test_identifiers_that_a_spreadsheet_has_rounded_are_refused(tmp_path, text):
    """1.00012E+14 is what Excel writes for 100012119990102."""
    (tmp_path / "t.csv").write_text(f"name,x\na,1e+16\n{text},2\n")
    with pytest.raises(TableError, match=r"AnnotationID is .*, a rounded number: .*t\.csv, line 3"):
        read_rows(tmp_path / "t.csv", ())
