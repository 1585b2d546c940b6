import json
from dataclasses import replace

import pytest
from report.samples import PLATT, make_manifest

from nodulemc.errors import EnsembleError, FileError
from nodulemc.report.explain_check import FILE_NAME, Check, read_checks, write_checks

CHECKS = {"rim": Check(0.625, 0.875, 62), "map": Check(-0.25, 1.0, 6)}


@pytest.fixture
def manifest(tmp_path):
    return replace(make_manifest(), folder=tmp_path)


@pytest.mark.parametrize(
    ("check", "passed"), [((0.5, 0.8), True), ((0.499, 0.9), False), ((0.9, 0.799), False), ((-0.9, 0.9), False)]
)
def test_what_has_to_be_reached(check, passed):
    assert Check(*check, 70).passed is passed


def test_checks_are_kept(manifest):
    assert read_checks(manifest) is None
    write_checks(manifest, CHECKS)
    assert read_checks(manifest) == CHECKS


def test_a_new_calibration_leaves_them_valid(manifest):
    write_checks(manifest, CHECKS)
    assert read_checks(replace(manifest, calibration=PLATT, sha256="6b" * 32)) == CHECKS


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"weight": 7.0}], ids=["weights", "vote"])
def test_other_weights_do_not(manifest, change):
    write_checks(manifest, CHECKS)
    first, *others = manifest.members
    assert read_checks(replace(manifest, members=(replace(first, **change), *others))) is None
    assert read_checks(replace(manifest, members=tuple(others))) is None


def test_nor_does_another_method(manifest, monkeypatch):
    write_checks(manifest, CHECKS)
    monkeypatch.setattr("nodulemc.report.explain_check.METHOD", 99)
    assert read_checks(manifest) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("members"),
        lambda content: content.update(checks=[1]),
        lambda content: content["checks"]["rim"].update(correlation="high"),
        lambda content: content["checks"]["rim"].update(agreement=True),
        lambda content: content["checks"]["rim"].pop("nodules"),
    ],
)
def test_malformed_files_are_refused(manifest, change):
    write_checks(manifest, CHECKS)
    path = manifest.folder / FILE_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(EnsembleError, match=r"a field is missing or malformed .*explanation\.json: remove it"):
        read_checks(manifest)


@pytest.mark.parametrize("text", ["[]", "3", '{"method": ', '"text"'])
def test_what_is_no_such_file_is_refused(manifest, text):
    (manifest.folder / FILE_NAME).write_text(text)
    with pytest.raises((EnsembleError, FileError)):
        read_checks(manifest)
