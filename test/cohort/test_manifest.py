from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from cohort.made import make_cohort, write_rows
from conftest import make_ct
from dicom import change_dicom, write_dicom_series

from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.read_scan import Job, read_scan
from nodulemc.errors import FileError, TableError
from nodulemc.points.reading import Nodule

NODULE_COLUMNS = ("ct", "AnnotationID", "CoordX", "CoordY", "CoordZ", "label")
NODULE_ROWS = [
    ("a.mha", "a_1", 1.5, -2, 3, 1),
    ("sub/b", "b_1", 4, 5, 6, ""),
    ("a.mha", "a_2", 1e-3, 0, 0, 0),
]


def check_nodules(scans, base: Path):
    assert [scan.name for scan in scans] == ["a.mha", "sub/b"]
    assert [scan.path for scan in scans] == [base / "a.mha", base / "sub/b"]
    assert scans[0].points == (Nodule("a_1", (1.5, -2, 3)), Nodule("a_2", (0.001, 0, 0)))
    assert scans[0].labels == (1, 0)
    assert scans[1].points == (Nodule("b_1", (4, 5, 6)),)
    assert scans[1].labels == (None,)
    assert all(scan.fault is None for scan in scans)


def test_one_row_per_nodule(tmp_path):
    check_nodules(read_cohort_manifest(write_rows(tmp_path / "m.csv", NODULE_COLUMNS, NODULE_ROWS)), tmp_path)


def test_parquet_is_the_same(tmp_path):
    columns = list(zip(*NODULE_ROWS, strict=True))
    columns[-1] = [1.0, float("nan"), 0.0]  # as pandas writes integers with gaps
    content = {name: list(values) for name, values in zip(NODULE_COLUMNS, columns, strict=True)}
    pyarrow.parquet.write_table(pyarrow.table(content), tmp_path / "m.parquet")
    check_nodules(read_cohort_manifest(tmp_path / "m.parquet"), tmp_path)


def test_other_column_names_and_absolute_paths(tmp_path):
    rows = [("/data/a.mha", 1, 2, 3)]
    (scan,) = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("path", "x", "y", "z"), rows))
    assert scan.path == Path("/data/a.mha")
    assert scan.points == (Nodule(None, (1, 2, 3)),)


def test_relative_manifest(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write_rows(tmp_path / "sub" / "m.csv", NODULE_COLUMNS, NODULE_ROWS)
    monkeypatch.chdir(tmp_path)
    check_nodules(read_cohort_manifest("sub/m.csv"), tmp_path / "sub")


def test_one_row_per_scan_with_a_points_file(tmp_path):
    rows = [("a.mha", "a.json", 1), ("/data/b", "/data/b.csv", "")]
    scans = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("ct", "points", "label"), rows))
    assert [scan.points for scan in scans] == [tmp_path / "a.json", Path("/data/b.csv")]
    assert [scan.labels for scan in scans] == [1, None]


def test_a_path_spelt_otherwise_names_the_same_scan(tmp_path):
    rows = [("./sub//a.mha", 1, 2, 3), ("sub/a.mha", 4, 5, 6)]
    (scan,) = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("ct", "x", "y", "z"), rows))
    assert (scan.name, len(scan.points)) == ("sub/a.mha", 2)
    (scan,) = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("ct", "points"), [("./sub/a.mha", "p.json")]))
    assert scan.name == "sub/a.mha"


def test_luna25_folder(tmp_path):
    scans = read_cohort_manifest(make_cohort(tmp_path / "luna", 3))
    assert [scan.name for scan in scans] == ["ct/1.2.0.mha", "ct/1.2.1.mha", "ct/1.2.2.mha"]
    assert [scan.path.is_file() for scan in scans] == [True] * 3
    assert [[nodule.name for nodule in scan.points] for scan in scans] == [["0_0"], ["1_0", "1_1"], ["2_0"]]
    assert [scan.labels for scan in scans] == [(0,), (1, 0), (0,)]


@pytest.mark.heavy
def test_a_folders_cts_may_be_dicom_series_anywhere_below(tmp_path):
    folder = make_cohort(tmp_path / "luna", 4)
    (folder / "ct" / "1.2.3.mha").unlink()
    for k, place in ((1, "nlst/101/CT_1.2.1"), (2, "mixed"), (0, "mixed")):
        write_dicom_series(make_ct(size=(40, 36, 24), seed=k), folder / "made")
        change_dicom(*(folder / "made").iterdir(), SeriesInstanceUID=f"1.2.{k}")
        (folder / "ct" / place).mkdir(parents=True, exist_ok=True)
        for file in (folder / "made").iterdir():
            file.rename(folder / "ct" / place / f"{k}{file.name}")
        if k:
            (folder / "ct" / f"1.2.{k}.mha").unlink()
    scans = read_cohort_manifest(folder)
    assert [scan.name for scan in scans] == ["ct/1.2.0", "ct/1.2.1", "ct/1.2.2", "ct/1.2.3.mha"]
    assert str(scans[0].fault).startswith(f"the CT of series 1.2.0 is there twice: {folder}/ct/1.2.0.mha: keep one")
    assert [scan.fault for scan in scans[1:]] == [None] * 3
    (folder / "ct" / "1.2.0.mha").unlink()
    reads = [read_scan(Job(scan)) for scan in read_cohort_manifest(folder)]
    whole = [read_scan(Job(scan)) for scan in read_cohort_manifest(make_cohort(tmp_path / "files", 3))]
    for read, other in zip(reads[:3], whole, strict=True):
        np.testing.assert_allclose(read.patches, other.patches, atol=1e-5)
    assert len({read.fingerprint.ct for read in reads[:3]}) == 3  # though two lie in one folder
    assert str(reads[3].error).startswith(f"cannot read (No such file or directory): {folder}/ct/1.2.3.mha")


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (("file", "x", "y", "z"), [("a", 1, 2, 3)], "columns are missing; found file, x, y, z"),
        (("ct", "x", "y"), [("a", 1, 2)], "columns are missing; found ct, x, y"),
        (("ct", "path", "points"), [("a", "b", "c")], "columns are ambiguous; found ct, path, points"),
        (("ct", "points", "x", "y", "z"), [("a", "p", 1, 2, 3)], "columns are ambiguous"),
        (("ct", "points"), [], "the table has no rows"),
        (("ct", "points"), [("a",)], "1 cell"),
    ],
)
def test_unusable_manifest(tmp_path, columns, rows, message):
    with pytest.raises(TableError, match=message):
        read_cohort_manifest(write_rows(tmp_path / "m.csv", columns, rows))


def test_unusable_files(tmp_path):
    (tmp_path / "m.parquet").write_bytes(b"nothing")
    with pytest.raises(TableError, match="cannot read the table"):
        read_cohort_manifest(tmp_path / "m.parquet")
    with pytest.raises(FileError, match=r"table\.csv"):
        read_cohort_manifest(tmp_path)
    with pytest.raises(FileError, match=r"\(No such file or directory\): .*none\.parquet"):
        read_cohort_manifest(tmp_path / "none.parquet")


GOOD = ("good.mha", "g_1", 1, 2, 3, 0)


@pytest.mark.parametrize(
    ("rows", "name", "message"),
    [
        ([("a.mha", "a_1", "left", 2, 3, 0)], "a.mha", "the point of nodule 'a_1' is .'left', 2.0, 3.0."),
        ([("a.mha", "a_1", "nan", 2, 3, 0)], "a.mha", "the point of nodule 'a_1'"),
        ([("a.mha", "a_1", "-1_0", 2, 3, 0)], "a.mha", "the point of nodule 'a_1' is .'-1_0', 2.0, 3.0."),
        ([("a.mha", "a_1", 1, 2, 3, "yes")], "a.mha", "label is 'yes'"),
        ([("", "a_1", 1, 2, 3, 0)], "(line 3)", "no path"),
        ([("a.mha", "g_1", 1, 2, 3, 0)], "a.mha", "duplicate AnnotationID 'g_1'.*line 3: line 2 has it"),
        ([("a.mha", "a_1", 1, 2, 3, 0), ("./a.mha", "a_1", 1, 2, 3, 0)], "a.mha", "duplicate AnnotationID 'a_1'"),
        ([("a.mha", "", 1, 2, 3, 0), ("a.mha", "", "1.0", 2, 3, 1)], "a.mha", "listed twice.*line 4: line 3 has its"),
        ([("a.mha", "a_1", 1, 2, 3, 0), ("a.mha", "", 1, 2, 3, 0)], "a.mha", "the nodule is listed twice"),
        ([("a.mha", "", 1, 2, 3, 0), ("a.mha", "a.mha#1", 1, 2, 4, 0)], "a.mha", "duplicate AnnotationID 'a.mha#1'"),
        ([("a\0.mha", "a_1", 1, 2, 3, 0)], r"a\x00.mha (line 3)", r"the path is 'a\\x00\.mha'"),
        ([("a.mha", f"a_{k}", 1, 2, 3, 0) for k in range(1001)], "a.mha", "1001 nodules"),
    ],
)
def test_a_bad_row_spoils_its_scan_only(tmp_path, rows, name, message):
    scans = read_cohort_manifest(write_rows(tmp_path / "m.csv", NODULE_COLUMNS, [GOOD, *rows, ("c", "c", 1, 2, 3, 0)]))
    assert [scan.name for scan in scans] == ["good.mha", name, "c"]
    assert [scan.fault is None for scan in scans] == [True, False, True]
    with pytest.raises(Exception, match=message):
        raise scans[1].fault


def test_two_names_may_share_a_point(tmp_path):
    rows = [("a.mha", name, 1, 2, 3, 0) for name in ("reader_1", "reader_2")]
    (scan,) = read_cohort_manifest(write_rows(tmp_path / "m.csv", NODULE_COLUMNS, rows))
    assert scan.fault is None


@pytest.mark.parametrize("bad", ["b\0", "é"])
def test_a_path_that_the_system_cannot_have_spoils_its_scan_only(tmp_path, monkeypatch, bad):
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("ascii"))
    rows = [("a.mha", "p.json"), (f"{bad}.mha", "p.json"), ("b.mha", f"{bad}.json"), ("c.mha", "p.json")]
    scans = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("ct", "points"), rows))
    assert [scan.fault and scan.fault.what for scan in scans] == [
        None, f"the path is {bad + '.mha'!r}", f"the points file is {bad + '.json'!r}", None
    ]  # fmt: skip


def test_a_spoiled_scan_claims_no_names(tmp_path):
    rows = [("a.mha", "n", 1, 2, 3, "yes"), ("b.mha", "n", 1, 2, 3, 0)]
    assert [
        scan.fault is None for scan in read_cohort_manifest(write_rows(tmp_path / "m.csv", NODULE_COLUMNS, rows))
    ] == [
        False,
        True,
    ]


def test_scan_listed_twice(tmp_path):
    (tmp_path / "a.mha").touch()
    (tmp_path / "link.mha").symlink_to("a.mha")
    rows = [("a.mha", "p.json"), ("link.mha", "q.json"), ("b.mha", ""), ("c.mha", "p.json")]
    scans = read_cohort_manifest(write_rows(tmp_path / "m.csv", ("ct", "points"), rows))
    assert [scan.name for scan in scans] == ["a.mha", "link.mha (line 3)", "b.mha (line 4)", "c.mha"]
    assert str(scans[1].fault).startswith("the scan is listed twice: ")
    assert str(scans[2].fault).startswith("no points file: ")
    assert scans[0].fault is scans[3].fault is None


def test_patients(tmp_path):
    columns = ("ct", "patient_id", "x", "y", "z")
    rows = [("a.mha", "p1", 1, 2, 3), ("b.mha", "", 1, 2, 3), ("a.mha", "", 4, 5, 6)]
    assert [scan.patient for scan in read_cohort_manifest(write_rows(tmp_path / "m.csv", columns, rows))] == [
        "p1",
        None,
    ]
    rows = [("a.mha", "a.json", 7), ("b.mha", "b.json", 8)]
    manifest = write_rows(tmp_path / "m.csv", ("ct", "points", "PatientID"), rows)
    assert [scan.patient for scan in read_cohort_manifest(manifest)] == ["7", "8"]


def test_a_scan_of_two_patients_is_spoiled(tmp_path):
    columns = ("ct", "PatientID", "x", "y", "z")
    rows = [("a.mha", "p1", 1, 2, 3), ("b.mha", "p1", 1, 2, 3), ("a.mha", "p2", 4, 5, 6)]
    first, second = read_cohort_manifest(write_rows(tmp_path / "m.csv", columns, rows))
    assert str(first.fault).startswith(f"PatientID is 'p2': {tmp_path}/m.csv, line 4: line 2 has 'p1' for the same")
    assert second.fault is None


def test_coordinates_twice_are_ambiguous(tmp_path):
    manifest = write_rows(tmp_path / "m.csv", ("ct", "x", "y", "z", "coordX", "coordY", "coordZ"), [("a", *range(6))])
    with pytest.raises(TableError, match="columns are ambiguous; found ct, x, y, z, coordX, coordY, coordZ"):
        read_cohort_manifest(manifest)


def test_luna16s_columns_and_a_spreadsheets_leftovers(tmp_path):
    (tmp_path / "table.csv").write_text(
        "seriesuid;coordX;coordY;coordZ;diameter_mm;;\n1.2;-1,5;2;3e1;6,1;;\n;;;;;;\n1.2;4,5;5;6;7;;\n", "utf-8-sig"
    )
    (scan,) = read_cohort_manifest(tmp_path)
    assert scan.name == "ct/1.2.mha"
    assert scan.points == (Nodule(None, (-1.5, 2, 30)), Nodule(None, (4.5, 5, 6)))


def test_a_folder_without_a_table_is_no_manifest(tmp_path):
    (tmp_path / "ct").mkdir()
    with pytest.raises(FileError) as caught:
        read_cohort_manifest(tmp_path)
    remedy = "put table.csv beside its folder ct, give a table instead, or score one CT with `nodulemc predict`"
    assert str(caught.value) == f"a folder without table.csv: {tmp_path}: {remedy}"


def test_a_ct_is_no_manifest(tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(b"")
    with pytest.raises(TableError, match=r"a CT, no manifest: .*ct\.nii\.gz: score one CT with `nodulemc predict`"):
        read_cohort_manifest(tmp_path / "ct.nii.gz")
