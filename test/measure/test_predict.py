"""`nodulemc predict` with measurements and risk models, from files to files."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch
from digital_shapes import ball, make_volume, middle

from nodulemc import cli
from nodulemc.columns import MEASURED
from nodulemc.commands import predict
from nodulemc.measure.growth import Growth
from nodulemc.measure.risk import MODELS
from nodulemc.measure.sizes import Measurements

CLINICAL = {
    "age": 62, "gender": "MALE", "smoking_status": "Unknown", "family_history": False, "emphysema": False,
    "nodule_count": 4, "nodules": {"n1": {"type": "solid", "upper_lobe": False, "spiculation": False}},
}  # fmt: skip


class Balls(MeanOfPatch):
    """An ensemble whose masks are balls of 12 mm; of a patch that is black at its middle, nothing."""

    def mask_probabilities(self, patches):
        return np.stack([ball(12) * (patch[32, 32, 32] > 0.1) for patch in patches])


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Balls())
    volume = make_volume((0.7, 0.7, 1.25))
    hu = np.full(volume.image.GetSize()[::-1], 40, np.int16)
    hu[:, :, :40] = -1000
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(volume.image)
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    places = [middle(volume, (20, 0, 0)), middle(volume, (-45, 0, 0))]
    points = [{"name": name, "point": place} for name, place in zip(("n1", "n2"), places, strict=True)]
    (tmp_path / "p.json").write_text(json.dumps({"points": points}))
    (tmp_path / "clinical.json").write_text(json.dumps(CLINICAL))
    return tmp_path


def run(case, *options):
    words = ["predict", case / "ct.mha", "--points", case / "p.json", *options]
    assert cli.main([*map(str, words)]) == 0


@pytest.mark.heavy
def test_json_has_measurements_and_risk_as_far_as_asked_for(case):
    output = case / "out.json"
    run(case, "--output", output)
    assert all(not {"measurements", "risk"} & {*point} for point in json.loads(output.read_text())["points"])
    run(case, "--output", output, "--measure")
    first, second = json.loads(output.read_text())["points"]
    assert "risk" not in first
    found = first["measurements"]
    assert found["volume_mm3"] == pytest.approx(math.pi / 6 * 12**3, rel=0.03)
    assert found["size_mm"] == 12
    assert (found["mean_hu"], found["solid_volume_mm3"]) == (40, found["volume_mm3"])
    assert found["mass_mg"] == pytest.approx(1.04 * found["volume_mm3"])
    assert set(second["measurements"].values()) == {None}
    assert "its mask is empty" in second["warnings"]
    run(case, "--output", output, "--clinical", case / "clinical.json")
    first, second = json.loads(output.read_text())["points"]
    assert first["measurements"] == found
    # Every term but that of the size is 0.
    log_odds = -6.7892 - 5.3854 * ((found["long_axis_mm"] / 10) ** -0.5 - 1.58113883)
    assert first["risk"]["brock_full"]["probability"] == pytest.approx(1 / (1 + math.exp(-log_odds)))
    assert first["risk"]["lung_rads_size"] == {"category": "4A"}
    assert first["risk"]["mayo"] == {"missing": ["smoking_status", "cancer_history"]}
    assert second["risk"]["brock_parsimonious"]["missing"] == ["long_axis_mm", "upper_lobe", "spiculation"]


def test_numbers_and_masks_are_of_one_pass(case, monkeypatch):
    class OnePass(Balls):
        findings = mask_probabilities = None

        def findings_and_masks(self, patches):
            passes.append(len(patches))
            return Balls().findings_and_masks(patches)

    passes, output = [], case / "out.json"
    run(case, "--output", output)
    plain = json.loads(output.read_text())["points"]
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: OnePass())
    run(case, "--output", output, "--measure", "--masks", case / "masks")
    assert passes == [1, 1]
    for alone, measured in zip(plain, json.loads(output.read_text())["points"], strict=True):
        assert {name: measured[name] for name in ("name", "point", "probability", "per_seed")} == {
            name: alone[name] for name in ("name", "point", "probability", "per_seed")
        }
        assert measured["warnings"][: len(alone["warnings"])] == alone["warnings"]


def test_csv_has_them_as_columns(case):
    output = case / "out.csv"
    run(case, "--output", output, "--clinical", case / "clinical.json", "--masks", case / "masks")
    first, second = csv.DictReader(output.read_text().splitlines())
    assert [*first][-len(MODELS) - 1 :] == [*MODELS, "risk_missing"]
    assert float(first["volume_mm3"]) == pytest.approx(math.pi / 6 * 12**3, rel=0.03)
    assert first["lung_rads_size"] == "4A"
    assert 0 < float(first["brock_full"]) < 1
    assert first["mayo"] == second["brock_full"] == second["volume_mm3"] == ""
    assert first["risk_missing"].startswith("mayo: smoking_status, cancer_history; herder: ")
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(case / "masks" / "ct.nii.gz"))) == 1
    assert voxels.sum() * 0.7 * 0.7 * 1.25 == pytest.approx(float(first["volume_mm3"]))


def test_the_columns_names_are_known_to_be_numbers():
    probabilities = [name for name, model in MODELS.items() if model.result == "probability"]
    growth = [field.name for field in fields(Growth) if field.name not in ("prior_nodule", "exceeds_error")]
    assert [*MEASURED] == [*(field.name for field in fields(Measurements)), *probabilities, *growth]


def test_the_table_shows_them(case, capsys):
    run(case, "--clinical", case / "clinical.json")
    header, first, second, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[-7:] == ["axes", "mm", "mm³", "Brock", "Mayo", "Herder", "Lung-RADS"]
    assert first.endswith("4A")
    assert second.split()[-6:] == ["-"] * 6
    assert len({len(line) for line in (header, first, second)}) == 1


def test_age_and_gender_may_be_options(case):
    output = case / "out.json"
    run(case, "--output", output, "--clinical", case / "clinical.json")
    with_file = json.loads(output.read_text())
    rest = {key: value for key, value in CLINICAL.items() if key not in ("age", "gender")}
    (case / "clinical.json").write_text(json.dumps(rest))
    run(case, "--output", output, "--clinical", case / "clinical.json", "--age", 62, "--gender", "male")
    assert json.loads(output.read_text()) == with_file
    run(case, "--output", output, "--gender", "male")
    risk = json.loads(output.read_text())["points"][0]["risk"]
    assert risk["brock_parsimonious"] == {"missing": ["upper_lobe", "spiculation"]}


def test_bad_clinical_information_is_told_before_the_network_runs(case, monkeypatch, capsys):
    monkeypatch.setattr(Balls, "member_probabilities", lambda *_: pytest.fail("the network ran"))
    (case / "clinical.json").write_text('{"age": "old"}')
    words = ["predict", case / "ct.mha", "--points", case / "p.json", "--clinical", case / "clinical.json"]
    assert cli.main([*map(str, words)]) == 2
    assert "error: age is 'old': " in capsys.readouterr().err


def test_no_input_is_overwritten(case, capsys):
    clinical, nifti = case / "clinical.json", case / "ct.nii.gz"
    words = ["predict", case / "ct.mha", "--points", case / "p.json", "--clinical", clinical, "--output", clinical]
    assert cli.main([*map(str, words)]) == 2
    assert "error: the output is an input, too: " in capsys.readouterr().err
    assert json.loads(clinical.read_text()) == CLINICAL
    sitk.WriteImage(sitk.ReadImage(str(case / "ct.mha")), str(nifti))
    before = nifti.read_bytes()
    assert cli.main([*map(str, ["predict", nifti, "--points", case / "p.json", "--masks", case])]) == 2
    assert "error: the label image would replace an input: " in capsys.readouterr().err
    assert nifti.read_bytes() == before


def test_without_these_options_nothing_of_them_is_imported():
    code = (
        "import sys, nodulemc.prediction, nodulemc.output.detailed; print([m for m in sys.modules if 'measure' in m])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
