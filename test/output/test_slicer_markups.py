"""Markups as 3D Slicer's schema has them, read back by our own reader."""

import json
from pathlib import Path

import pytest
import SimpleITK as sitk
from cases import MeanOfPatch
from conftest import centre_of, make_ct

from nodulemc import cli
from nodulemc.commands import predict
from nodulemc.ensemble.manifest import EnsembleManifest, Member
from nodulemc.errors import CaseError, FileError
from nodulemc.models.architecture import Architecture
from nodulemc.output.slicer_colours import colour
from nodulemc.output.slicer_markups import write_markups
from nodulemc.points.nodules import Nodule
from nodulemc.points.reading import read_points
from nodulemc.prediction import NodulePrediction

# Facts of https://github.com/Slicer/Slicer, markups-schema-v1.0.3.json: types by key; all else is additional.
MARKUP = {
    "type": str, "name": str, "coordinateSystem": str, "coordinateUnits": str, "locked": bool,
    "fixedNumberOfControlPoints": bool, "labelFormat": str, "controlPoints": list, "display": dict,
}  # fmt: skip
CONTROL_POINT = {
    "id": str, "label": str, "description": str, "position": list, "selected": bool, "locked": bool,
    "visibility": bool, "positionStatus": str,
}  # fmt: skip
DISPLAY = {
    "visibility": bool, "color": list, "selectedColor": list, "propertiesLabelVisibility": bool,
    "pointLabelsVisibility": bool,
}  # fmt: skip
MANIFEST = EnsembleManifest(
    tuple(Member(f"seed_{k}.safetensors", "0" * 64, Architecture("inception_i3d")) for k in range(2)),
    trained_on="phantoms",
    folder=Path("/models/a"),
    sha256="ab" * 32,
)
PREDICTIONS = [
    NodulePrediction(Nodule("n1", (-1.5, 20.25, -300.0)), 0.8749, (0.2, 0.6), ("a warning", "another")),
    NodulePrediction(Nodule(None, (1, 2, 3)), 0.12, (0.9, 0.7)),
]


@pytest.fixture
def path(tmp_path):
    write_markups(tmp_path / "found.mrk.json", PREDICTIONS, MANIFEST)
    return tmp_path / "found.mrk.json"


def check_types(found, types):
    assert {key: type(value) for key, value in found.items()} == types


def test_it_is_as_the_schema_says(path):
    content = json.loads(path.read_text())
    assert content["@schema"].endswith("/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#")
    assert {*content} == {"@schema", "markups"}
    for markup in content["markups"]:
        check_types(markup, MARKUP)
        assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
        check_types(markup["display"], DISPLAY)
        for shade in (markup["display"]["color"], markup["display"]["selectedColor"]):
            assert len(shade) == 3
            assert all(0 <= part <= 1 for part in shade)
        (point,) = markup["controlPoints"]
        check_types(point, CONTROL_POINT)
        assert point["positionStatus"] == "defined"
        assert [*map(type, point["position"])] == [float] * 3


def test_labels_votes_and_colours(path):
    first, second = json.loads(path.read_text())["markups"]
    assert first["controlPoints"][0]["label"] == first["name"] == "n1: 0.87"
    assert second["controlPoints"][0]["label"] == "2: 0.12"
    assert first["controlPoints"][0]["description"] == "seed_0 0.20, seed_1 0.60; a warning; another"
    assert second["controlPoints"][0]["description"] == "seed_0 0.90, seed_1 0.70"
    assert first["display"]["color"] == pytest.approx(colour(0.8749))


def test_our_own_reader_finds_the_points_in_their_order(path):
    assert read_points(path, None) == [
        Nodule("n1: 0.87", (-1.5, 20.25, -300.0)), Nodule("2: 0.12", (1.0, 2.0, 3.0)),
    ]  # fmt: skip


def test_colours_run_from_blue_by_yellow_to_red():
    low, middle, high = map(colour, (0.0, 0.5, 1.0))
    assert low[2] == max(low)
    assert min(middle[:2]) > 2 * middle[2]
    assert high[0] > 4 * max(high[1:])
    quarter = colour(0.25)
    assert quarter == pytest.approx([(a + b) / 2 for a, b in zip(low, middle, strict=True)], abs=1e-4)


def test_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        write_markups(tmp_path / "none" / "found.mrk.json", PREDICTIONS, MANIFEST)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: MeanOfPatch())
    image = make_ct()
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    (tmp_path / "p.json").write_text(json.dumps({"points": [{"name": "n1", "point": list(centre_of(image))}]}))
    return tmp_path


def words(case, *options):
    return [*map(str, ["predict", case / "ct.mha", "--points", case / "p.json", *options])]


def test_predict_writes_them_without_decoders(case, capsys):
    output, markups = case / "out.json", case / "new" / "out.mrk.json"
    assert cli.main(words(case, "--output", output, "--markups", markups)) == 0
    (point,) = json.loads(output.read_text())["points"]
    (nodule,) = read_points(markups, None)
    assert nodule == Nodule(f"n1: {point['probability']:.2f}", pytest.approx(point["point"]))
    assert f"written: {markups}: 1 point for 3D Slicer" in capsys.readouterr().out


def test_markups_that_replace_something_or_are_none_are_refused(case, capsys):
    before = (case / "p.json").read_bytes()
    for options, message in (
        (["--markups", case / "out.json"], "unknown output type: "),
        (["--markups", case / "a.mrk.json", "--output", case / "a.mrk.json"], "--markups and --output are one file: "),
    ):
        assert cli.main(words(case, *options)) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
    (case / "p.mrk.json").write_bytes(before)
    given = ["predict", case / "ct.mha", "--points", case / "p.mrk.json", "--markups", case / "p.mrk.json"]
    assert cli.main([*map(str, given)]) == 2
    assert "error: the output is an input, too: " in capsys.readouterr().err
    assert (case / "p.mrk.json").read_bytes() == before


def test_no_markups_stay_where_the_output_fails(case, monkeypatch):
    def refuse(*_):
        raise CaseError("cannot write", "out.json", "no")

    monkeypatch.setattr("nodulemc.output.detailed.write_json_atomically", refuse)
    markups = case / "new" / "out.mrk.json"
    assert cli.main(words(case, "--output", case / "out.json", "--markups", markups)) == 2
    assert not markups.parent.exists()
