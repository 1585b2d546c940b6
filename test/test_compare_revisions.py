import numpy as np
import pytest
from conftest import load_script, make_ct
from dicom import change_dicom, write_dicom_series


@pytest.fixture(scope="module")
def script():
    return load_script("compare_revisions")


@pytest.fixture
def sides(tmp_path):
    for side in ("old", "new"):
        (tmp_path / side).mkdir()
    return tmp_path / "old", tmp_path / "new"


def write_both(sides, name: str, old: str | bytes, new: str | bytes) -> None:
    for folder, content in zip(sides, (old, new), strict=True):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_the_first_difference_is_shown(script, sides):
    write_both(sides, "a.csv", "x\n1\n", "x\n1\n")
    write_both(sides, "b.csv", "name,p\nleft,0.5\n", "name,p\nleft,0.25\n")
    assert script.difference(*sides) == "b.csv: line 2: 'left,0.5' / 'left,0.25'"
    assert script.difference(*(side / "b.csv" for side in sides)) == ": line 2: 'left,0.5' / 'left,0.25'"
    assert script.difference(*(side / "a.csv" for side in sides)) is None


def test_a_line_more_a_byte_and_a_missing_file_are_differences(script, sides):
    write_both(sides, "a", "x\n", "x\ny\n")
    assert script.difference(*sides) == "a: line 2: '' / 'y'"
    write_both(sides, "a", "x\n", "x")
    assert script.difference(*sides) == "a: byte 1"
    write_both(sides, "a", b"\0\1\2", b"\0\1\3")
    assert script.difference(*sides) == "a: byte 2"
    (sides[1] / "a").unlink()
    assert script.difference(*sides) == "a: only in old"
    (sides[0] / "a").unlink()
    assert script.difference(*sides) == "written by neither"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ensemble.json", f'{{"git_revision": "{"0" * 40}"}}', '{"git_revision": null}'),
        ("MODEL_CARD.md", f"- Code: git revision {'a' * 40}", f"- Code: git revision {'b' * 40}-dirty"),
        ("page.html", "nodulemc 0.1.0 at 2026-01-02 03:04 UTC", "nodulemc 0.2.0rc1 at 2026-11-12 13:14 UTC"),
        ("metrics.csv", "epoch,seconds,loss\n1,3.5,0.25\n", "epoch,seconds,loss\n1,12.0,0.25\n"),
        ("results.sqlite", "x", "y"),
    ],
)
def test_what_must_differ_is_left_out(script, sides, name, old, new):
    write_both(sides, "other", "x", "x")
    write_both(sides, name, old, new)
    assert script.difference(*sides) is None


def test_the_rest_of_such_files_counts(script, sides):
    write_both(sides, "metrics.csv", "epoch,seconds,loss\n1,3.5,0.25\n", "epoch,seconds,loss\n1,3.5,0.5\n")
    assert script.difference(*sides) == "metrics.csv: line 2: '1,,0.25' / '1,,0.5'"


def test_dicom_files_may_have_other_uids_and_times(script, sides):
    for side, folder in enumerate(sides):
        write_dicom_series(make_ct(size=(8, 8, 4)), folder)
        change_dicom(folder / "000.dcm", ContentTime=f"11111{side}")
    assert script.difference(*sides) is None
    change_dicom(sides[1] / "000.dcm", PatientID="another")
    assert "another" in script.difference(*sides)


def test_words_are_spelled_as_the_revision_has_them(script):
    help_text = "usage: nodulemc train [--ensemble DIR]\n  --ensemble DIR  instead of --resources\n  --seeds N\n"
    assert [script.spelled(word, help_text) for word in ("--resources", "--seeds", "4")] == [
        "--ensemble",
        "--seeds",
        "4",
    ]
    assert script.spelled("export", "  train    train and export\n  cohort-export  results\n") == "cohort-export"
    assert script.spelled("central_epochs", "run:\n  centre_crop_epochs: 0  # [here]\n") == "centre_crop_epochs"


def test_an_unknown_revision_is_refused(script):
    with pytest.raises(script.CaseError, match="no such revision: nonsense: "):
        script.commit_of("nonsense")


def test_inputs_are_always_the_same(script, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        script.write_study(tmp_path / name)
    assert script.difference(tmp_path / "a", tmp_path / "b") is None
    labels = np.loadtxt(tmp_path / "a" / "predictions.csv", delimiter=",", skiprows=1, usecols=1)
    assert (len(labels), set(labels)) == (240, {0, 1})
