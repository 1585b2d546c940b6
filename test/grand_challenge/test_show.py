import json
import subprocess
import sys

from nodulemc.ensemble.manifest import PACKAGED_MODEL
from nodulemc.grand_challenge import show

POINTS = [{"name": "n1", "point": [1, 2, 3], "probability": 0.25}, {"point": [1, 2, 3], "probability": 1}]
TABLE = ["nodule  probability of malignancy", "n1      0.2500", "2       1.0000"]


def lines_of(content, tmp_path, monkeypatch, capsys):
    (tmp_path / "result.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["show", str(tmp_path / "result.json")])
    show.main()
    return capsys.readouterr().out.splitlines()


def test_of_grand_challenges_output_only_the_ensemble_in_use_can_be_named(tmp_path, monkeypatch, capsys):
    *table, ensemble, trained_on = lines_of({"points": POINTS}, tmp_path, monkeypatch, capsys)
    assert table == TABLE
    path = PACKAGED_MODEL / "ensemble.json"
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:12]
    expected = f"ensemble: not named in this file; the one in use here is {PACKAGED_MODEL} (SHA-256 {digest})"
    assert ensemble == expected
    assert trained_on == f"weights trained on: {json.loads(path.read_text())['trained_on']}"


def test_the_ensemble_that_a_file_names_is_shown_whatever_is_in_use(tmp_path, monkeypatch, capsys):
    named = {"ensemble": {"path": "/models/a", "sha256": "abcdef012345" + 52 * "6"}, "trained_on": "LUNA25"}
    *table, ensemble, trained_on = lines_of({"points": POINTS} | named, tmp_path, monkeypatch, capsys)
    assert table == TABLE
    assert ensemble == "ensemble: /models/a (SHA-256 abcdef012345)"
    assert trained_on == "weights trained on: LUNA25"
