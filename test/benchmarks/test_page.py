"""What the case page costs, of made-up times."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
try:
    import measure
    import page
finally:
    # test/training would be taken for benchmarks/training.py.
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def ran(monkeypatch):
    """The options of each run, which takes so many seconds more than the prediction as its round's number."""
    runs = []
    slow = [3.0, 2.0, 9.0]  # of the prediction: the last round was disturbed

    def run(words):
        option = next((word for word in words if word in ("--masks", "--measure", "--report")), None)
        turn = [*runs].count(option)
        runs.append(option)
        if option == "--report":
            Path(words[words.index(option) + 1]).write_bytes(bytes(500_000))
        points = Path(words[words.index("--points") + 1]).read_text().splitlines()
        return slow[turn] + (turn + 1) * (option is not None), float(len([*csv.DictReader(points)]))

    monkeypatch.setattr(page, "run_cold", run)
    return runs


def test_each_run_is_compared_with_the_prediction_of_its_round(ran, shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    page.main(["--data", str(shared_data), "--repeats", "3"])
    assert ran == [None, "--masks", "--measure", "--report"] * 3
    (found,) = json.loads((tmp_path / "results.json").read_text())["page"].values()
    assert (found["scan"], found["nodules"], found["page_mb"]) == ("LIDC-IDRI-0003", 4, 0.5)
    floor = found["costs"].pop("prediction")
    assert floor == {"seconds": 3, "over_floor_seconds": 0, "of_floor": 1, "peak_mb": 4}
    times = np.median([4 / 3, 4 / 2, 12 / 9])
    for cost in found["costs"].values():
        assert cost == {"seconds": 4, "over_floor_seconds": 2, "of_floor": times, "peak_mb": 4}
    assert ["--report", "4.00", "2.00", "1.33", "4"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_without_the_scan_it_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit):
        page.main(["--data", str(tmp_path)])
    assert f"no scan at {tmp_path / page.SCAN}: give the folder with lidc/ as --data" in capsys.readouterr().err
