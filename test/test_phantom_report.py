import numpy as np
import pytest
from conftest import load_script
from sklearn.metrics import roc_auc_score


@pytest.fixture(scope="module")
def report():
    return load_script("phantom_report")


def readers_and_truth(patients: int) -> tuple[dict, np.ndarray, np.ndarray, list[str]]:
    """The known probability, a reader that hardly knows it and one in between; labels, probabilities and patients.

    Each patient has three nodules that are alike, so that resampling nodules would give too narrow an interval.
    """
    random = np.random.default_rng(3)
    once = random.beta(1, 3, patients)
    noisy = {name: once + random.normal(0, noise, patients) for name, noise in (("weak", 0.8), ("middle", 0.2))}
    known, labels = np.repeat(once, 3), np.repeat(random.random(patients) < once, 3).astype(int)
    readers = {"best": known} | {name: np.repeat(scores, 3) for name, scores in noisy.items()}
    return readers, labels, known, [f"p{k // 3}" for k in range(3 * patients)]


def share(readers, labels, nodules) -> float:
    """How far the middle reader is on the way from the weak to the best one, by scikit-learn."""
    best, weak, middle = (roc_auc_score(labels[nodules], scores[nodules]) for scores in readers.values())
    return (middle - weak) / (best - weak)


@pytest.mark.heavy
def test_rows_are_scikit_learns_aucs_and_a_bootstrap_of_patients(report):
    readers, labels, known, patients = readers_and_truth(400)
    lines = report.table_rows(readers, labels, known, patients)[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in rows] == ["best", "weak", "middle"]
    assert [float(row[1]) for row in rows] == pytest.approx(
        [roc_auc_score(labels, s) for s in readers.values()], abs=6e-5
    )
    assert [row[2:4] for row in rows[:2]] == [["100%", ""], ["0%", ""]]
    assert float(rows[2][2].rstrip("%")) == pytest.approx(100 * share(readers, labels, np.arange(1200)), abs=0.51)
    random = np.random.default_rng(4)
    nodules_of = np.arange(1200).reshape(400, 3)
    drawn = [share(readers, labels, nodules_of[random.integers(400, size=400)].ravel()) for _ in range(1000)]
    interval = [float(end.rstrip("%")) for end in rows[2][3].split(" to ")]
    assert interval == pytest.approx(100 * np.percentile(drawn, [2.5, 97.5]), abs=2.5)
    redrawn = [roc_auc_score(random.random(1200) < readers["best"], readers["middle"]) for _ in range(400)]
    assert float(rows[2][4]) == pytest.approx(np.mean(redrawn), abs=0.01)
