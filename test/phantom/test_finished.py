import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from nodulemc.cli import main
from nodulemc.errors import TableError
from nodulemc.phantom import finished
from nodulemc.phantom import generate as cohort
from nodulemc.phantom.generate import patients_until_malignant, series_uids, write_cohort
from nodulemc.phantom.patient import Patient

pytestmark = pytest.mark.heavy

SEED = 6


@pytest.fixture(autouse=True)
def rendered(monkeypatch):
    """The scans that are drawn, without the time that whole ones take."""
    scans = []

    def render(scene, drawn):
        scans.append(scene.noise_key)
        return np.full(scene.grid.size[::-1], len(drawn), np.int16)

    monkeypatch.setattr(cohort, "render", render)
    return scans


def make(folder, patients=2):
    command = ["phantom", "--output", folder, "--patients", patients, "--seed", SEED, "--workers", 1]
    return main([str(word) for word in command])


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def whole(tmp_path, rendered):
    assert make(tmp_path / "whole") == 0
    rendered.clear()
    return tmp_path / "whole"


def scans_of(patients):
    return [
        (*Patient(SEED, index).noise_key(scan),) for index in range(patients) for scan in Patient(SEED, index).scans
    ]


def test_a_stopped_run_goes_on(whole, tmp_path, monkeypatch, rendered, capsys):
    masks = sorted((whole / "masks").iterdir())
    first_patient = len(Patient(SEED, 0).scans)
    assert first_patient >= 2
    write = sitk.WriteImage
    written = []

    def stop(image, *arguments, **options):
        written.append(image.GetPixelID())
        if written.count(sitk.sitkUInt8) == len(masks):
            raise KeyboardInterrupt
        write(image, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(sitk, "WriteImage", stop)
        assert make(tmp_path / "stopped") == 130
    assert not (tmp_path / "stopped" / "table.csv").exists()
    before = len(rendered)
    assert make(tmp_path / "stopped") == 0
    # The scan that was under way is made again, and no other.
    assert before == len(scans_of(2))
    assert rendered[before:] == scans_of(2)[-1:]
    assert f"{before - 1} of them from an earlier run" in capsys.readouterr().out
    assert digests(tmp_path / "stopped") == digests(whole)


def test_a_file_that_is_gone_is_made_again(whole, rendered):
    expected = digests(whole)
    (whole / "ct" / f"{series_uids(SEED, 2)[0]}.mha").unlink()
    sorted((whole / "masks").glob(f"{Patient(SEED, 1).identifier}_*"))[-1].unlink()
    (whole / "table.csv").unlink()
    assert make(whole) == 0
    assert rendered == [scans_of(2)[0], scans_of(2)[-1]]
    assert digests(whole) == expected


def test_more_patients_keep_the_first(whole, rendered, capsys):
    expected = digests(whole)
    assert make(whole, 3) == 0
    assert rendered == scans_of(3)[len(scans_of(2)) :]
    found = digests(whole)
    assert {name for name in expected if found[name] != expected[name]} == {"table.csv"}
    assert make(whole, 2) == 2
    assert "the folder holds scans of another cohort" in capsys.readouterr().err
    assert digests(whole) == found


def test_other_options_are_refused(whole, rendered):
    found = digests(whole)
    with pytest.raises(TableError, match=r"with another seed, --into or version: .*: write to a new folder"):
        write_cohort(whole, SEED, 2, 1, host=SimpleNamespace(digest="another"))
    assert digests(whole) == found
    with pytest.raises(TableError, match="another cohort"):
        write_cohort(whole, SEED + 1, 2, 1)
    assert rendered == []


def test_scans_that_nothing_is_known_of_are_made_again(whole, rendered, caplog):
    expected = digests(whole)
    for note in (whole / ".phantom").iterdir():
        note.unlink()
    (whole / "ct" / f"{series_uids(SEED, 2)[0]}.mha").write_bytes(b"half a sc")
    assert make(whole) == 0
    assert rendered == scans_of(2)
    assert caplog.messages == [f"{whole}: nothing says whether the scans there are whole; they are made again"]
    assert digests(whole) == expected


def test_half_a_file_never_has_a_scans_name(tmp_path, monkeypatch, capsys):
    def fail(image, path, **options):
        Path(path).write_bytes(b"half a sc")
        raise OSError("no space")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    assert make(tmp_path) == 2
    assert "cannot write phantoms" in capsys.readouterr().err
    assert not list((tmp_path / "ct").iterdir())


def test_one_run_at_a_time(tmp_path, capsys):
    with finished.writing(tmp_path, {"seed": SEED, "into": None}):
        assert make(tmp_path) == 2
    assert "another run is writing these phantoms" in capsys.readouterr().err


def test_what_is_missing_for_training_is_said(whole, capsys):
    labels = [lesion.label for index in range(50) for lesion in Patient(SEED, index).lesions]
    first = next(k for k in range(50) if any(lesion.label for lesion in Patient(SEED, k).lesions)) + 1
    assert sum(labels) > 0
    assert patients_until_malignant(SEED) == first > 2
    assert make(whole) == 0
    printed = capsys.readouterr().out
    assert f"no nodule is malignant, as training and evaluation need: give --patients {first} or more\n" in printed
    assert "(0 malignant)" in printed


def test_notes_hold_the_rows(whole):
    for uid in series_uids(SEED, 2):
        rows = json.loads((whole / ".phantom" / f"{uid}.json").read_text())
        assert {row["SeriesInstanceUID"] for row in rows} == {uid}
