"""`nodulemc predict --report`, from files to a page."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch, points_near
from conftest import make_ct
from digital_shapes import ball
from report.samples import make_manifest

from nodulemc import cli
from nodulemc.commands import predict
from nodulemc.errors import CaseError
from nodulemc.report.explain_check import Check, write_checks

pytestmark = pytest.mark.heavy


class Whole:
    """What a page needs of an ensemble besides its numbers."""

    precision = "fp32"

    def member_probabilities(self, patches):
        return super().member_probabilities(patches)[:, [0, 1, 1]]

    def vote(self, by_member):
        return by_member @ self.manifest.vote_weights


class Segmenting(Whole, MeanOfPatch):
    manifest = make_manifest(attributes=())

    def mask_probabilities(self, patches):
        return np.stack([ball(12)] * len(patches))


class Plain(Whole, MeanOfPatch):
    manifest = make_manifest(attributes=(), decoder=False)


@pytest.fixture
def case(tmp_path, monkeypatch):
    image = make_ct()
    sitk.WriteImage(image, str(tmp_path / "ct & co.mha"))
    points = [{"name": "a/b", "point": place["point"]} for place in points_near(image)[:1]]
    (tmp_path / "p.json").write_text(json.dumps({"points": [*points, *points_near(image)[1:2]]}))
    use(monkeypatch, Segmenting())
    return tmp_path


def use(monkeypatch, ensemble, asked=None):
    def load(args, *, masks, calibrated):
        if asked is not None:
            asked.append(masks)
        return ensemble

    monkeypatch.setattr(predict, "load_ensemble", load)
    monkeypatch.setattr(predict, "can_segment", lambda args: ensemble.manifest.segments)


def run(case, *options):
    words = ["predict", case / "ct & co.mha", "--points", case / "p.json", *options]
    return cli.main([*map(str, words)])


def test_a_page_with_masks_and_measurements(case, capsys):
    page, output = case / "pages" / "p.html", case / "out.json"
    assert run(case, "--report", page, "--output", output) == 0
    text = page.read_text(encoding="utf-8")
    assert "Lung nodules: ct &amp; co.mha" in text
    assert text.count("<path d=") == 2 * 3
    points = json.loads(output.read_text())["points"]
    for point in points:
        assert f"<b>{point['probability']:.3f}</b>" in text
        assert f"{point['measurements']['volume_mm3']:,.0f} mm³" in text
    assert f"written: {page}: the page of 2 nodules" in capsys.readouterr().out


def test_an_ensemble_without_decoders_has_a_page_without_outlines(case, monkeypatch):
    asked = []
    use(monkeypatch, Plain(), asked)
    assert run(case, "--report", case / "p.html") == 0
    assert asked == [False]
    text = (case / "p.html").read_text(encoding="utf-8")
    assert "The ensemble has no decoder" in text
    assert "<path" not in text


def test_masks_are_asked_for_where_the_ensemble_has_them(case, monkeypatch):
    asked = []
    use(monkeypatch, Segmenting(), asked)
    assert run(case, "--report", case / "p.html") == 0
    assert run(case) == 0
    assert asked == [True, False]


@pytest.fixture
def checked(case, monkeypatch):
    """An ensemble with a folder, whose rim and map have passed on phantoms; what it was asked after the masks."""
    ensemble = Segmenting()
    ensemble.manifest = replace(ensemble.manifest, folder=case)
    good, bad = Check(0.75, 0.9, 70), Check(0.125, 0.4, 70)
    write_checks(ensemble.manifest, {"solid": bad, "rim": good, "size": bad, "map": good})
    use(monkeypatch, ensemble)
    monkeypatch.setattr("nodulemc.ensemble.manifest.read_manifest", lambda folder: ensemble.manifest)
    return ensemble


def test_what_has_held_on_phantoms_is_explained(case, checked):
    assert run(case, "--report", case / "p.html", "--explain", "--output", case / "out.json") == 0
    text = (case / "p.html").read_text(encoding="utf-8")
    assert text.count("<h3>What moves the probability</h3>") == 2
    assert text.count('<th scope="row">Rim<') == 2
    assert text.count("coloured where replacing a cell changes the probability") == 2 * 3
    assert "Solid part<" not in text
    assert "Not shown, as on phantoms it did not move" in text
    failed = "(correlation 0.12, same direction in 40%)"
    assert f"solid part {failed}, pleura (not checked), size {failed}." in text


def test_the_probability_without_a_part_is_the_ensembles(case, checked, monkeypatch):
    seen = []
    vote = Whole.vote
    monkeypatch.setattr(Whole, "vote", lambda self, by_member: seen.append(vote(self, by_member)) or seen[-1])
    (case / "p.json").write_text(json.dumps({"points": json.loads((case / "p.json").read_text())["points"][:1]}))
    assert run(case, "--report", case / "p.html", "--explain") == 0
    text = (case / "p.html").read_text(encoding="utf-8")
    base, rim = seen[0][0], seen[1][0]
    change = f"{rim - base:+.3f}".replace("-", "−")
    assert f"held on phantoms: 0.75</span></th><td>{rim:.3f}</td><td>{change}</td>" in text


def test_an_unchecked_ensemble_is_not_explained(case, checked, caplog):
    (case / "explanation.json").unlink()
    assert run(case, "--report", case / "p.html", "--explain") == 0
    text = (case / "p.html").read_text(encoding="utf-8")
    said = "No explanation is shown: these weights have not been checked on phantoms"
    assert said in text
    assert [said in message for message in caplog.messages].count(True) == 1
    assert "What moves" not in text


def test_unasked_nothing_is_explained(case, checked):
    assert run(case, "--report", case / "p.html") == 0
    text = (case / "p.html").read_text(encoding="utf-8")
    assert "What moves" not in text
    assert "ot shown" not in text


def test_an_explanation_belongs_to_a_page(case, capsys):
    assert run(case, "--explain") == 2
    assert capsys.readouterr().err.startswith("error: --explain without --report: nodulemc predict: name the page")


def test_malformed_checks_are_refused_before_any_work(case, checked, capsys):
    (case / "explanation.json").write_text("{}")
    (case / "p.html").write_text("an earlier page")
    assert run(case, "--report", case / "p.html", "--explain") == 2
    assert "explanation.json: remove it, or make it again" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--masks"])
def test_what_fails_leaves_no_page(case, monkeypatch, option):
    def refuse(*_, **__):
        raise CaseError("cannot write", "x", "y")

    (case / "p.html").write_text("an earlier page")
    writer = {"--output": "output.detailed.write_results", "--masks": "measure.mask_files.write_masks"}[option]
    monkeypatch.setattr(f"nodulemc.{writer}", refuse)
    assert run(case, "--report", case / "p.html", option, case / "m.json") == 2
    assert not (case / "p.html").exists()


def test_masks_go_with_a_page_that_cannot_be_written(case, monkeypatch):
    def refuse(*_, **__):
        raise CaseError("cannot write", "x", "y")

    monkeypatch.setattr("nodulemc.report.files.write_report", refuse)
    points = json.loads((case / "p.json").read_text())
    points["points"][0]["name"] = "first"
    (case / "p.json").write_text(json.dumps(points))
    assert run(case, "--report", case / "p.html", "--masks", case / "masks") == 2
    assert [*case.glob("masks/*")] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("p.pdf", "error: unknown type of report: "), ("linked.html", "error: the report is an input, too: ")],
)
def test_unusable_paths(case, capsys, name, said):
    os.link(case / "ct & co.mha", case / "other.html")
    (case / "linked.html").symlink_to(case / "p.json")
    assert run(case, "--report", case / name) == 2
    assert capsys.readouterr().err.startswith(said)
    assert json.loads((case / "p.json").read_text())


@pytest.mark.parametrize("library", ["jinja2", "PIL"])
def test_without_its_extra(case, monkeypatch, capsys, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert run(case, "--report", case / "p.html") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {library} cannot be imported")
    assert said.endswith(": report: pip install 'nodulemc[report]'\n")
    assert run(case) == 0


def test_without_the_option_nothing_of_it_is_imported(case):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from cases import MeanOfPatch\n"
        "from nodulemc import cli; from nodulemc.commands import predict\n"
        "predict.load_ensemble = lambda args, **_: MeanOfPatch()\n"
        "assert cli.main(['predict', *sys.argv[2:]]) == 0\n"
        "names = ('nodulemc.report', 'nodulemc.measure.mask_files', 'PIL', 'jinja2')\n"
        "print([n for n in sys.modules if n.startswith(names)])"
    )
    words = [sys.executable, "-c", code, "test", str(case / "ct & co.mha"), "--points", str(case / "p.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
