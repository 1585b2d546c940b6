"""Output folders: made where they are missing, and a place that cannot be written is told before any work."""

from pathlib import Path

import pytest
from conftest import without_privileges

from nodulemc import cli
from nodulemc.util.files import make_folder, prepare_output

# Commands whose inputs are there, but empty: whoever reads them before it looks at OUT says something else.
COMMANDS = [
    "predict input --points input --output OUT/p.json",
    "predict input --points input --masks OUT",
    "predict . --points input --dicom OUT",
    "import-reference input --output OUT",
    "prepare --table input --ct . --nodule-masks . --output OUT",
    "split input --seed 1 --output OUT/split.json",
    "phantom --output OUT --patients 1 --seed 1 --into input",
    "phantom --output OUT --patients 1 --seed 1 --blocks",
    "evaluate input --output OUT",
    "cohort manifest.csv --output OUT",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("input").touch()
    Path("manifest.csv").write_text("ct,AnnotationID,CoordX,CoordY,CoordZ\ninput,a,1,2,3\n")
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS)
def test_a_file_in_the_way_is_told_before_any_work(line, folder, capsys):
    Path("file").touch()
    for place, reason in (("file", "File exists"), ("file/below", "Not a directory")):
        assert cli.main(line.replace("OUT", place).split()) == 2
        assert capsys.readouterr().err == (
            f"error: cannot make the folder ({reason}): {place}: name one that can be written\n"
        )


@pytest.mark.parametrize("line", COMMANDS)
def test_a_folder_without_leave_is_told_before_any_work(line, public_folder, monkeypatch, capsys):
    monkeypatch.chdir(public_folder)
    Path("input").touch()
    Path("manifest.csv").write_text("ct,AnnotationID,CoordX,CoordY,CoordZ\ninput,a,1,2,3\n")
    Path("closed").mkdir()
    with without_privileges():
        assert cli.main(line.replace("OUT", "closed").split()) == 2
    assert capsys.readouterr().err == "error: cannot write (Permission denied): closed: name one that can be written\n"


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("a"), Path("a/b")]


def test_an_output_is_prepared(tmp_path):
    old = tmp_path / "new" / "old.json"
    prepare_output(old)
    old.touch()
    (tmp_path / "new" / "other").touch()
    prepare_output(old)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other"]
