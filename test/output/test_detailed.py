"""Detailed results in their three forms, calibrated and not, against a map worked out by hand."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from nodulemc.ensemble.calibration import apply_calibration
from nodulemc.ensemble.manifest import EnsembleManifest, Member
from nodulemc.models.architecture import Architecture
from nodulemc.output.detailed import detailed_json, table, write_results
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction

PLATT = {
    "method": "platt", "training_prevalence": 0.5, "fitted_prevalence": 0.1, "prevalence": 0.09, "slope": 0.8,
    "intercept": -1.1,
}  # fmt: skip
MEMBERS = tuple(Member(f"seed_{k}.safetensors", "0" * 64, Architecture("inception_i3d"), weight) for k, weight in
                enumerate((1.0, 3.0)))  # fmt: skip
MANIFEST = EnsembleManifest(
    MEMBERS, trained_on="phantoms", calibration=PLATT, folder=Path("/models/a"), sha256="abcdef012345" + 52 * "6"
)
PER_SEED = ((0.2, 0.6), (0.9, 0.7))
VOTES = (0.5, 0.75)  # (0.2 + 3 · 0.6) / 4, (0.9 + 3 · 0.7) / 4


def predictions(calibrated):
    values = apply_calibration(np.array(VOTES), PLATT if calibrated else None)
    return [
        NodulePrediction(Nodule(f"n{k}", (1.0, 2.0, 3.0)), float(value), seeds, ("warned",))
        for k, (value, seeds) in enumerate(zip(values, PER_SEED, strict=True))
    ]


def by_hand(vote):
    return expit(0.8 * logit(vote) - 1.1 + logit(0.09) - logit(0.1))


def test_json_says_what_was_before_and_how_it_was_calibrated():
    content = detailed_json(predictions(True), MANIFEST, calibrated=True)
    stated = {name: PLATT[name] for name in ("method", "training_prevalence", "fitted_prevalence", "prevalence")}
    assert content["calibration"] == stated
    assert content["ensemble"] == {"path": "/models/a", "sha256": MANIFEST.sha256}
    for point, vote in zip(content["points"], VOTES, strict=True):
        assert point["uncalibrated"] == pytest.approx(vote)
        assert point["probability"] == pytest.approx(by_hand(vote))
    json.dumps(content)


def test_csv_says_so_in_each_row(tmp_path):
    write_results(tmp_path / "p.csv", predictions(True), MANIFEST, calibrated=True)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [float(row["uncalibrated"]) for row in rows] == pytest.approx(VOTES)
    assert [float(row["probability"]) for row in rows] == pytest.approx([by_hand(vote) for vote in VOTES])
    assert {row["calibration"] for row in rows} == {"platt, for a prevalence of 0.09"}
    assert {(row["ensemble"], row["trained_on"]) for row in rows} == {(MANIFEST.sha256, "phantoms")}


def test_the_table_says_so():
    header, first, second, said, ensemble, origin = table(predictions(True), MANIFEST, calibrated=True).splitlines()
    assert header.split() == ["nodule", "probability", "uncalibrated", "seed_0", "seed_1"]
    assert first.split() == ["n0", f"{by_hand(0.5):.4f}", "0.5000", "0.2000", "0.6000"]
    assert second.split() == ["n1", f"{by_hand(0.75):.4f}", "0.7500", "0.9000", "0.7000"]
    assert said == "calibrated: platt, for a prevalence of 0.09"
    assert ensemble == "ensemble: /models/a (SHA-256 abcdef012345)"
    assert origin == "weights trained on: phantoms"
    assert len({len(line) for line in (header, first, second)}) == 1


@pytest.mark.parametrize("manifest", [MANIFEST, replace(MANIFEST, calibration=None)])
def test_a_stored_map_that_is_not_applied_is_not_spoken_of(tmp_path, manifest):
    content = detailed_json(predictions(False), manifest)
    assert "calibration" not in content
    assert "uncalibrated" not in content["points"][0]
    assert "calibrat" not in table(predictions(False), manifest)
    write_results(tmp_path / "p.csv", predictions(False), manifest)
    (header, *_) = csv.reader((tmp_path / "p.csv").read_text().splitlines())
    assert header[-3:] == ["warnings", "ensemble", "trained_on"]


def test_attributes_by_name_in_the_detailed_output_of_an_ensemble_that_tells_them(tmp_path):
    member = replace(MEMBERS[1], architecture=Architecture("inception_i3d", attributes=("texture", "spiculation")))
    telling = replace(MANIFEST, members=(MEMBERS[0], member))
    told = [replace(p, attributes=(1.5, 4.25)) for p in predictions(False)]
    for point in detailed_json(told, telling)["points"]:
        assert point["attributes"] == {"spiculation": 1.5, "texture": 4.25}
    write_results(tmp_path / "p.csv", told, telling)
    for row in csv.DictReader((tmp_path / "p.csv").read_text().splitlines()):
        assert (row["attribute_spiculation"], row["attribute_texture"]) == ("1.5", "4.25")
    blank, said, header, first, second, end, *_ = table(told, telling).splitlines()[3:]
    assert (blank, end) == ("", "")
    assert said == "as radiologists would rate (1 to 5, calcification 1 to 6: absent)"
    assert header.split() == ["nodule", "spiculation", "texture"]
    assert [first.split(), second.split()] == [["n0", "1.5", "4.2"], ["n1", "1.5", "4.2"]]
    assert "radiologists" not in table(predictions(False), MANIFEST)
    assert all("attributes" not in point for point in detailed_json(predictions(False), MANIFEST)["points"])
    write_results(tmp_path / "p.csv", predictions(False), MANIFEST)
    assert "attribute" not in (tmp_path / "p.csv").read_text()
