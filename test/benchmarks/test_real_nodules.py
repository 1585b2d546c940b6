"""The figures on real nodules, with an untrained network, against scikit-learn, SciPy and SimpleITK."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ensembles import make_untrained_ensemble
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from nodulemc.ct.volume import read_volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.models.architecture import Architecture
from nodulemc.patch import SIZE, VOXEL_MM, extract_patch, patch_origin

pytestmark = pytest.mark.heavy

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

sys.path.insert(0, str(BENCHMARKS))
try:
    import real_nodules
    from lidc_readers import Readings, dice, readings
finally:
    # test/training would be taken for benchmarks/training.py.
    sys.path.remove(str(BENCHMARKS))

CUBES = 7  # LIDC-IDRI-0003 and the next: both classes and an undecided one


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    architecture = Architecture("inception_i3d", decoder_widths=(8, 8, 8, 8, 8), attributes=("texture",))
    make_untrained_ensemble(folder, (1, 2), architecture=architecture, upscales=False)
    return folder


@pytest.fixture
def cubes(shared_data: Path, tmp_path: Path) -> tuple[Path, list[dict[str, str]]]:
    """The first cubes, whose table alone is another."""
    given, folder = shared_data / "lidc/cubes", tmp_path / "cubes"
    folder.mkdir()
    for name in ("ct", "masks"):
        (folder / name).symlink_to(given / name)
    lines = (given / "table.csv").read_text().splitlines()[: CUBES + 1]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    rows = list(csv.DictReader(lines))
    assert {row["label"] for row in rows} == {"0", "1", ""}
    return folder, rows


def test_every_figure(cubes, ensemble: Path, shared_data: Path, tmp_path: Path, capsys):
    pytest.importorskip("pylidc", exc_type=ImportError)
    folder, rows = cubes
    slabs = ["--slabs", str(shared_data / "lidc/slabs")]
    arguments = ["--output", str(tmp_path / "out"), "--cubes", str(folder), *slabs, "--ensemble", f"toy={ensemble}"]
    assert real_nodules.main(arguments) == 0
    found = json.loads((tmp_path / "out/real_nodules.json").read_text())["sets"]["Cubes"]
    page = (tmp_path / "out/real_nodules.md").read_text()
    assert page in capsys.readouterr().out

    labelled = [k for k, row in enumerate(rows) if row["label"]]
    labels = [int(rows[k]["label"]) for k in labelled]
    patches = np.stack(
        [extract_patch(read_volume(folder / "ct" / f"{row['SeriesInstanceUID']}.mha"), (0, 0, 0)) for row in rows]
    )
    loaded = Ensemble.load(ensemble, masks=True)
    per_member, told = Ensemble.load(ensemble).findings(patches)  # on the backend that `predict` uses without masks
    toy = found["ensembles"]["toy"]
    assert list(toy["scores"]) == ["seed_1", "seed_2", "vote"]
    for scores, own in zip((*per_member.T, loaded.vote(per_member)), toy["scores"].values(), strict=True):
        assert own["all"]["auc"] == pytest.approx(roc_auc_score(labels, scores[labelled]), abs=1e-9)
        assert own["all"]["brier"] == pytest.approx(np.mean((scores[labelled] - labels) ** 2), abs=1e-3)
        diameters = [float(rows[k]["diameter_mm"]) for k in labelled]
        ruler = roc_auc_score(labels, diameters)
        assert own["all"]["diameter"]["auc"] == pytest.approx(ruler)
        assert own["all"]["diameter"]["difference"] == pytest.approx(own["all"]["auc"] - ruler)
    assert toy["scores"]["vote"]["3 readers or more"]["nodules"] == sum(int(rows[k]["readers"]) > 2 for k in labelled)

    masks = loaded.mask_probabilities(patches) > 0.5
    overlaps = [dice(mask, of_file(folder, row)) for mask, row in zip(masks, rows, strict=True)]
    assert toy["dice_of_all_parts"] == {
        "mean": pytest.approx(np.mean(overlaps), abs=2e-3),
        "median": pytest.approx(np.median(overlaps), abs=2e-3),
    }
    overlaps = [dice(nearest_part(mask), of_file(folder, row)) for mask, row in zip(masks, rows, strict=True)]
    assert toy["dice"] == {
        "mean": pytest.approx(np.mean(overlaps), abs=2e-3),
        "median": pytest.approx(np.median(overlaps), abs=2e-3),
    }
    texture = toy["attributes"]["texture"]
    means = [float(row["texture"]) for row in rows]
    assert texture["nodules"] == CUBES  # the undecided one too
    assert texture["spearman"] == pytest.approx(spearmanr(told[:, 0], means)[0])
    assert texture["mae"] == pytest.approx(np.abs(told[:, 0] - means).mean(), abs=1e-3)
    several = [row for row in rows if int(row["readers"]) > 1]
    assert found["readers"]["found"] == CUBES
    assert found["readers"]["nodules"] == texture["readers"]["nodules"] == len(several)
    assert 0.6 < found["readers"]["two"]["mean"] < found["readers"]["with_others"]["mean"] < 0.95
    assert 0.6 < found["readers"]["consensus"]["mean"] < 0.95
    assert f"| toy, vote | {toy['scores']['vote']['all']['auc']:.3f}" in page
    assert f"| two readers ({len(several)} nodules) | {found['readers']['two']['mean']:.3f} |" in page


def nearest_part(mask: np.ndarray) -> np.ndarray:
    """The component nearest to the patch's centre, within 5 mm, by SciPy."""
    parts, _ = ndimage.label(mask)
    index = np.indices(mask.shape) - (SIZE - 1) / 2
    away = np.where(mask, np.sqrt((index**2).sum(axis=0)) * VOXEL_MM, np.inf)
    return (parts == parts.flat[away.argmin()]) & mask & (away.min() <= 5)


def of_file(folder: Path, row: dict[str, str]) -> np.ndarray:
    """A cube's mask on its patch's grid, by SimpleITK."""
    mask = sitk.ReadImage(str(folder / "masks" / f"{row['AnnotationID']}.mha"), sitk.sitkFloat32)
    grid = sitk.ResampleImageFilter()
    grid.SetSize([SIZE] * 3)
    grid.SetOutputSpacing([VOXEL_MM] * 3)
    grid.SetOutputOrigin(patch_origin((0, 0, 0)))
    return sitk.GetArrayFromImage(grid.Execute(mask)) > 0.5


def test_held_out_nodules_are_the_splits(cubes, tmp_path: Path):
    folder, rows = cubes
    store = real_nodules.prepared(folder, tmp_path)
    chosen = real_nodules.load(store, {rows[1]["AnnotationID"], rows[4]["AnnotationID"]})
    assert [row["AnnotationID"] for row in chosen.rows] == [rows[1]["AnnotationID"], rows[4]["AnnotationID"]]
    volume = read_volume(folder / "ct" / f"{rows[4]['SeriesInstanceUID']}.mha")
    np.testing.assert_allclose(chosen.patches[1], extract_patch(volume, (0, 0, 0)), atol=1e-5)


def test_ratings_are_fitted_to_other_patients():
    random = np.random.default_rng(0)
    rows = [{"PatientID": f"p{k}", "label": k % 2, "texture": random.normal() + 3 * (k % 2)} for k in range(40)]
    liars = [{**row, "label": 1 - row["label"]} for row in rows[:10]]
    honest = real_nodules.regression(rows[:10], rows[10:], ["texture"])
    undecided = {"PatientID": "q", "label": None, "texture": 99.0}
    np.testing.assert_array_equal(
        real_nodules.regression(rows[:10], [*rows[10:], *liars, undecided], ["texture"]), honest
    )
    assert roc_auc_score([row["label"] for row in rows[:10]], honest) > 0.9


def test_a_group_of_one_class_has_no_figures(tmp_path: Path):
    rows = [
        {
            "AnnotationID": str(k),
            "PatientID": str(k),
            "label": k % 2,
            "diameter_mm": str(30 * (k % 2) + 7),
            "readers": 4,
        }
        for k in range(8)
    ]
    nodules = real_nodules.Nodules(rows, np.empty(8), np.empty(8))
    found = real_nodules.figures(nodules, np.linspace(0.1, 0.9, 8))
    assert found["6 to 20 mm"] is None
    assert found["3 readers or more"] == found["all"]
    assert found["all"]["diameter"]["auc"] == 1
    line = {"diameter": found}
    page = real_nodules.in_markdown(
        "x", {"simple": line, "ensembles": {}, "readers": {"nodules": 0, "two": None, "with_others": None}}
    )
    assert "| largest diameter | 1.000 (1.000 to 1.000) | – | 1.000 (1.000 to 1.000) |" in page


def test_without_data_nothing_is_judged(tmp_path: Path, capsys):
    assert real_nodules.main(["--output", str(tmp_path), "--cubes", str(tmp_path)]) == 2
    assert f"no table.csv in {tmp_path}" in capsys.readouterr().err


def test_consensus_is_compared_on_the_centroids(tmp_path: Path):
    for name, radius, spacing, at in (
        ("cubes", 8, (1, 1, 1), (3, -2, 1)),
        ("slabs", 6, (0.7, 0.7, 1.25), (0, 0, 0)),
    ):
        (tmp_path / name / "masks").mkdir(parents=True)
        size = [int(50 / mm) for mm in spacing]
        ball = sitk.GaussianSource(sitk.sitkFloat32, size, [radius] * 3, at, 1, [-25.0] * 3, spacing)
        sitk.WriteImage(ball > np.exp(-0.5), str(tmp_path / name / "masks" / f"{name}.mha"))
    nodule = {"PatientID": "p", "LesionID": "1"}
    alone = {**nodule, "LesionID": "2", "AnnotationID": "alone"}
    found = real_nodules.dice_with_consensus(
        [nodule | {"AnnotationID": "cubes"}, alone],
        tmp_path / "cubes",
        tmp_path / "slabs",
        [nodule | {"AnnotationID": "slabs"}],
    )
    assert found == [pytest.approx(2 * 6**3 / (8**3 + 6**3), abs=0.02)]


def test_readings_can_be_asked_for_again(cubes):
    _, rows = cubes
    first, second = (readings([row | {"readers": 0}]) for row in rows[:2])  # no nodule has no readers
    assert first == second == [None]


def test_readers_dice():
    a, b, c = (np.array(mask, bool) for mask in ([1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]))
    own = Readings([], np.stack([a, b, c]))
    assert own.dice_of_two() == pytest.approx(np.mean([4 / 6, 2 / 4, 4 / 6]))
    # Half of two others is one of them: their union.
    assert own.dice_with_others() == pytest.approx(np.mean([4 / 6, 6 / 7, 4 / 6]))
