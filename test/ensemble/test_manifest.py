import csv
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nodulemc.ensemble import manifest as manifests
from nodulemc.ensemble.manifest import EnsembleManifest, Member, member_bytes, named, read_manifest, write_manifest
from nodulemc.ensemble.trained_cases import read_trained_cases
from nodulemc.errors import EnsembleError, FileError
from nodulemc.models.architecture import Architecture

ARCHITECTURE = Architecture(backbone="inception_i3d")
# printf abc | sha256sum
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

CALIBRATION = {
    "method": "temperature",
    "temperature": 1.5,
    "training_prevalence": 0.5,
    "fitted_prevalence": 0.5,
    "prevalence": 0.5,
}


def example() -> EnsembleManifest:
    return EnsembleManifest(
        members=(
            Member("seed_2000.safetensors", ABC_SHA256, ARCHITECTURE, seed=2000),
            Member("seed_2001.safetensors", ABC_SHA256, Architecture("i3d_r50", head_widths=(64,)), weight=2.0, fold=0),
            Member(
                "base.safetensors", ABC_SHA256, Architecture("inception_i3d", pooling="windows_2x2x2"), upscales=False
            ),
        ),
        trained_on="phantoms",
        licence="Apache-2.0",
        git_revision="abc",
        max_deviation={"bf16": 0.002, "fp16": 0.0003},
        calibration=CALIBRATION,
        tolerance=0.004,
        trained_cases=ABC_SHA256,
    )


def edited(folder, change):
    write_manifest(folder, example())
    path = folder / manifests.FILE_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_a_manifest_survives_writing_and_reading(tmp_path):
    write_manifest(tmp_path, example())
    assert read_manifest(tmp_path) == example()
    assert example().member_names == ["seed_2000", "seed_2001", "base"]
    assert read_manifest(tmp_path).folder == tmp_path


def test_members_tell_attributes_and_the_ensemble_those_of_any(tmp_path):
    told = (("texture", "spiculation"), (), ("margin", "spiculation"))
    members = [
        replace(member, architecture=replace(member.architecture, attributes=names))
        for member, names in zip(example().members, told, strict=True)
    ]
    write_manifest(tmp_path, replace(example(), members=tuple(members)))
    manifest = read_manifest(tmp_path)
    assert [member.architecture.attributes for member in manifest.members] == list(told)
    assert manifest.attributes == ("spiculation", "texture", "margin")
    stated = json.loads((tmp_path / "ensemble.json").read_text())["members"]
    assert [member["architecture"].get("attributes") for member in stated] == [list(names) or None for names in told]
    assert example().attributes == ()


def test_format_1_is_read_as_ever(tmp_path):
    folder = edited(tmp_path, lambda c: (c.update(format=1), c["members"].pop()))
    manifest = read_manifest(folder)
    assert manifest == replace(example(), members=example().members[:2])
    assert all(member.upscales for member in manifest.members)


def test_a_format_2_that_says_nothing_of_folds_and_cases_is_read(tmp_path):
    folder = edited(tmp_path, lambda c: (c.pop("trained_cases"), [member.pop("fold") for member in c["members"]]))
    manifest = read_manifest(folder)
    assert (manifest.trained_cases, [member.fold for member in manifest.members]) == (None, [None] * 3)


def test_the_shipped_ensemble_lists_its_cases_and_no_patient_that_it_is_judged_by(shared_data):
    manifest = read_manifest(manifests.PACKAGED_MODEL)
    cases = read_trained_cases(manifest)
    (trained,) = {cases.of_member(name) for name in manifest.member_names}
    assert len(trained) == len({case.patient for case in trained}) == 563
    with (shared_data / "lidc/cubes/table.csv").open(newline="") as table:
        judged = {row["PatientID"] for row in csv.DictReader(table)}
    assert len(judged) == 67
    assert judged.isdisjoint(case.patient for case in trained)


def test_the_manifests_own_sha256_names_the_ensemble(tmp_path):
    write_manifest(tmp_path, example())
    found = subprocess.run(["sha256sum", "ensemble.json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert read_manifest(tmp_path).identity == {"path": str(tmp_path), "sha256": found.stdout.split()[0]}
    assert named(read_manifest(tmp_path).identity) == f"{tmp_path} (SHA-256 {found.stdout[:12]})"


def test_the_input_contract_is_written_out(tmp_path):
    write_manifest(tmp_path, example())
    stated = json.loads((tmp_path / "ensemble.json").read_text())["input"]
    assert stated == {
        "patch_size": 64,
        "extent_mm": 50.0,
        "hu_window": [-1000.0, 400.0],
        "upscaled": [64, 128, 128],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=3), "format 3: .*reads formats 1 and 2"),
        (lambda c: c.update(format="2"), "format '2'"),
        (lambda c: c["members"][0].update(input={"upscaled": [64, 96, 96]}), "a member's input contract is .*96"),
        (lambda c: c["members"][0].update(input={"extent_mm": 60.0}), "a member's input contract is .*60"),
        (lambda c: c["members"][0].update(input=[64, 64, 64]), "missing or malformed"),
        (lambda c: c["members"][0]["architecture"].update(pooling="max"), "unknown pooling 'max'"),
        (lambda c: c["input"].update(extent_mm=60.0), "input contract"),
        (lambda c: c.pop("members"), "missing or malformed"),
        (lambda c: c.update(members=[]), "no members"),
        (lambda c: c.pop("trained_on"), "missing or malformed"),
        (lambda c: c["calibration"].update(temperature=0), "calibration parameter is out of range"),
        (lambda c: c["calibration"].pop("prevalence"), "malformed calibration"),
        (lambda c: c["members"][0].update(file="../seed.safetensors"), "member file"),
        (lambda c: c["members"][0].update(file="seed.pth"), "member file"),
        (lambda c: c["members"][0].update(file="a\0.safetensors"), "member file"),
        (lambda c: c["precision"].update(max_deviation={"bf16": "small"}), "missing or malformed"),
        (lambda c: c["precision"].update(max_deviation=[1]), "missing or malformed"),
        (lambda c: c["members"][0].update(weight=0), "weight 0"),
        (lambda c: c["members"][0].update(weight=1e400), "malformed JSON|weight"),
        (lambda c: c["members"][0].update(weight=10**400), "missing or malformed"),
        (lambda c: c["members"][0].update(weight="1_0"), "'1_0' is no number"),
        (lambda c: c["members"][0].update(weight=True), "True is no number"),
        (lambda c: c["members"][0].update(sha256=None), "missing or malformed"),
        (lambda c: c["members"][0].update(sha256=5), "missing or malformed"),
        (lambda c: c["members"][0].update(sha256="abc"), "SHA-256 'abc'"),
        (lambda c: c["members"][0].update(seed={"a": 1}), "seed {'a': 1}"),
        (lambda c: c["members"][0].update(fold=-1), "fold -1: .*: give an integer from 0, or null"),
        (lambda c: c["members"][0].update(fold=True), "fold True"),
        (lambda c: c["members"][0].update(fold="1"), "fold '1'"),
        (lambda c: c.update(trained_cases="abc"), "the list of training cases has SHA-256 'abc'"),
        (lambda c: c.update(trained_cases=5), "5 is no text"),
        (lambda c: c["members"].append(c["members"][0]), r"seed_2000\.safetensors is listed twice"),
        (lambda c: c["precision"].update(max_deviation={"bf16": 10**400}), "missing or malformed"),
        (lambda c: c["precision"].update(max_deviation={"bf16": -0.001}), "deviation of bf16 -0.001 is negative"),
        (lambda c: c["precision"].update(max_deviation={"bf16": "0.001"}), "'0.001' is no number"),
        (lambda c: c["precision"].update(tolerance=-0.001), "the tolerance -0.001 is negative"),
        (lambda c: c["precision"].update(tolerance=None), "None is no number"),
        (lambda c: c.update(trained_on=5), "5 is no text"),
        (lambda c: c.update(trained_on=""), "empty text"),
        (lambda c: c.update(licence=["MIT"]), "no text"),
        (lambda c: c["members"][1]["architecture"].update(backbone="vgg"), "vgg"),
    ],
)
def test_a_manifest_that_cannot_be_honoured_is_refused(tmp_path, change, message):
    with pytest.raises((EnsembleError, FileError), match=message):
        read_manifest(edited(tmp_path, change))


def unpacked(folder, *names):
    """Files and, where a name ends in a slash, folders with an ensemble, in a folder that is there."""
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_manifest(folder / name, example())
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("weights")
    return folder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"no ensemble\.json in it or one folder below; it holds nothing: .*: give an ensemble folder"),
        (["model.pth", "notes/a.txt"], r"no ensemble\.json in it or one folder below; it holds model\.pth, notes/: "),
        (["a/b/ensemble/"], r"no ensemble\.json in it or one folder below; it holds a/: "),
        ([f"{k}.bin" for k in range(9)], r"it holds 0\.bin, 1\.bin, 2\.bin, 3\.bin, 4\.bin and 4 more: "),
        (["first/", "second/"], r"it holds 2 ensembles \(first/, second/\): .*: give one of them"),
    ],
)
def test_a_folder_without_a_manifest_is_refused(tmp_path, names, message):
    with pytest.raises(EnsembleError, match=message):
        read_manifest(unpacked(tmp_path, *names))


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "ensemble.json").write_text("{}")
    for path in (tmp_path / "none", tmp_path / "ensemble.json"):
        with pytest.raises(EnsembleError, match=r"no ensemble\.json, as this is no folder: "):
            read_manifest(path)


def test_an_ensemble_wrapped_in_one_folder_is_found(tmp_path):
    manifest = read_manifest(unpacked(tmp_path, "my-model/", "__MACOSX/._my-model", "._my-model", "README.md"))
    assert manifest == example()
    assert manifest.folder == tmp_path / "my-model"


def test_a_manifest_in_the_folder_wins_over_those_below(tmp_path):
    assert read_manifest(unpacked(tmp_path, "./", "older/")).folder == tmp_path


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifests, "MOUNTED_MODEL", tmp_path)
    monkeypatch.setattr(Path, "is_file", closed)
    # Other weights than those that are mounted would be a silent answer.
    assert manifests.find_resources() == tmp_path
    with pytest.raises(EnsembleError, match=r"cannot read the folder .Permission denied.: .*: check its permissions"):
        read_manifest(tmp_path)


def test_a_members_bytes_are_checked(tmp_path):
    member = example().members[0]
    with pytest.raises(EnsembleError, match="cannot read the member"):
        member_bytes(tmp_path, member)
    (tmp_path / member.file).write_bytes(b"abc")
    assert member_bytes(tmp_path, member) == b"abc"
    (tmp_path / member.file).write_bytes(b"abd")
    with pytest.raises(EnsembleError, match=r"SHA-256 is .* says ba7816bf8f01.*seed_2000\.safetensors.*copy it again"):
        member_bytes(tmp_path, member)


def test_a_pipe_is_no_seed(tmp_path):
    member = example().members[0]
    os.mkfifo(tmp_path / member.file)
    with pytest.raises(FileError, match=r"not a regular file: .*seed_2000\.safetensors"):
        member_bytes(tmp_path, member)


def test_a_seed_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    member = example().members[0]
    (tmp_path / member.file).write_bytes(b"abc")
    monkeypatch.setattr(manifests, "MAX_MEMBER_BYTES", 2)
    with pytest.raises(FileError, match="the file holds more than"):
        member_bytes(tmp_path, member)


def test_a_mounted_model_wins_over_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOUNTED_MODEL", tmp_path / "none")
    assert manifests.find_resources() == manifests.PACKAGED_MODEL
    monkeypatch.setattr(manifests, "MOUNTED_MODEL", tmp_path)
    assert manifests.find_resources() == manifests.PACKAGED_MODEL
    write_manifest(tmp_path, example())
    assert manifests.find_resources() == tmp_path


@pytest.mark.parametrize("name", ["model/", "model.tar.gz", ".hidden"])
def test_whatever_is_mounted_is_never_passed_over(tmp_path, monkeypatch, name):
    monkeypatch.setattr(manifests, "MOUNTED_MODEL", unpacked(tmp_path, name))
    assert manifests.find_resources() == tmp_path


def test_a_file_in_place_of_the_mounted_folder_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "MOUNTED_MODEL", tmp_path / "model")
    (tmp_path / "model").touch()
    assert manifests.find_resources() == tmp_path / "model"
