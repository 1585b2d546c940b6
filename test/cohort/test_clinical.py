"""A cohort's clinical table: what its rows are about, what counts before what, and what is refused."""

from pathlib import Path

import pytest
from cohort.made import write_rows

from nodulemc.cohort.clinical import Clinical, read_clinical_table
from nodulemc.cohort.scan import Scan
from nodulemc.errors import CaseError, TableError
from nodulemc.points.reading import Nodule


def scan(name="ct/1.2.3.mha", names=("a", None), patient="P1", points=None):
    nodules = tuple(Nodule(own, (0.0, 0.0, float(k))) for k, own in enumerate(names))
    return Scan(name, Path("/data") / name, points or nodules, patient=patient)


@pytest.fixture
def read(tmp_path):
    return lambda columns, *rows: read_clinical_table(write_rows(tmp_path / "c.csv", columns, rows))


def test_rows_of_patients_scans_and_nodules(read):
    table = read(
        ("PatientID", "SeriesInstanceUID", "AnnotationID", "age", "Sex", "Emphysema", "type", "upper lobe"),
        ("P1", "", "", 61.5, "Female", "no", "", ""),
        ("P1", "1.2.3", "", 62, "", "", "", ""),
        ("P1", "1.2.3", "a", "", "", "yes", "Part-Solid", "true"),
        ("P1", "1.2.3", "ct/1.2.3.mha#2", "", "", "", "Unknown", "FALSE"),
        ("P9", "", "", 50, "male", "", "", ""),
    )
    patient = {"age": 62, "gender": "female", "emphysema": False}
    own = {"a": {"emphysema": True, "type": "part-solid", "upper_lobe": True}}
    assert table.of(scan()) == Clinical(patient, own | {"ct/1.2.3.mha#2": {"upper_lobe": False}})
    assert table.of(scan("ct/4.mha", ("b",))) == Clinical({"age": 61.5, "gender": "female", "emphysema": False}, {})
    assert table.of(scan("ct/5.mha", ("b",), patient=None)) == Clinical({}, {})


def test_nodules_of_points_files_go_by_scan_and_number(read):
    table = read(("AnnotationID", "type"), ("x/a.mha#1", "solid"), ("x/a.mha#12", "solid"), ("y/a.mha#1", "solid"))
    found = table.of(scan("x/a.mha", points=Path("/data/p.json")))
    assert list(found.nodules) == ["x/a.mha#1", "x/a.mha#12"]


def test_luna25s_own_table(shared_data):
    table = read_clinical_table(shared_data / "luna25" / "luna25_public_training_development_data.csv")
    assert table.of(scan(names=("100570_1_19990102",), patient="100570")).nodules == {
        "100570_1_19990102": {"age": 63, "gender": "male"}
    }


def test_paths_go_as_the_manifest_has_them(read):
    table = read(("ct", "nodule_count"), ("./ct//1.2.3.mha", 4))
    assert table.of(scan()).patient == {"nodule_count": 4}


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (("PatientID", "age"), [("P1", 61), ("P1", 61), ("P1", 62)], "age is 62.0: .*, line 4: line 2 "),
        (("PatientID", "age"), [("P1", "old")], "age is 'old': .*, line 2: give a number of years"),
        (("PatientID", "emphysema"), [("P1", 1)], "emphysema is 1.0: .*: give true, false"),
        (("AnnotationID", "spiculation"), [("a", 3.5)], "spiculation is 3.5: "),
        (("PatientID", "type"), [("P1", "solid")], "type of no nodule: .*, line 2: name the nodule"),
        (("PatientID", "age"), [("", 60)], "the row names nothing: .*, line 2"),
        (("PatientID", "label"), [("P1", 1)], "no clinical information"),
        (("age", "gender"), [(60, "male")], "no clinical information"),
    ],
)
def test_what_is_refused(read, columns, rows, message):
    with pytest.raises((CaseError, TableError), match=message):
        read(columns, *rows)


def test_a_table_of_another_cohort(read):
    with pytest.raises(TableError, match="no row says anything of the manifest's"):
        read(("PatientID", "age"), ("P7", 60)).of_all([scan()])
