import csv
from types import SimpleNamespace

import numpy as np
import pytest
from training.luna25_files import Cohort, point_of

from nodulemc.ct.volume import Volume
from nodulemc.data.extract import ScanSource
from nodulemc.data.nodule_table import read_table
from nodulemc.data.prepare import prepare
from nodulemc.evaluation.predictions import read_predictions
from nodulemc.evaluation.stored_nodules import StoredNodules
from nodulemc.patch import extract_patch


class BrightnessEnsemble:
    """Two seeds that say how bright a patch is; the second has thrice the weight."""

    manifest = SimpleNamespace(
        member_names=["seed_1", "epoch2"], attributes=("texture",), sha256="5" * 64, trained_on="light"
    )

    def findings(self, patches):
        brightness = patches.mean(axis=(1, 2, 3), dtype=np.float64)
        return np.stack([brightness, brightness**2], axis=1), 5 * brightness[:, None]

    def vote(self, by_member):
        return by_member @ [0.25, 0.75]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def stored(cohort):
    store = cohort.folder / "store"
    rows = read_table(cohort.folder / "table.csv")
    prepare(rows, ScanSource(cohort.folder / "ct"), cohort.folder / "masks", store, 1)
    return StoredNodules(store)


@pytest.fixture
def masked_rows(cohort):
    return [row for row in cohort.rows if row["note"] != "no mask"]


def patch_of_whole_scan(cohort, row):
    return extract_patch(Volume(cohort.ct_of(row), cohort.folder), point_of(row).tolist())


@pytest.mark.heavy
def test_patches_are_those_of_the_whole_scans(cohort, stored, masked_rows):
    for row in masked_rows:
        expected = patch_of_whole_scan(cohort, row)
        np.testing.assert_allclose(stored.patch(row["AnnotationID"]), expected, atol=1e-5)


def test_a_nodule_that_is_not_there_has_no_patch(stored):
    assert stored.patch("12_9_19990102") is None


def test_table_holds_the_columns(stored, masked_rows):
    assert set(stored.table) == {row["AnnotationID"] for row in masked_rows}
    cells = stored.table["12_3_19990102"].cells
    assert (cells["label"], cells["PatientID"], cells["Gender"], cells["note"]) == ("1", "12", "Female", "last")


def test_predictions_are_written_as_csv(cohort, stored, masked_rows, tmp_path):
    output = tmp_path / "predictions.csv"
    stored.predict(BrightnessEnsemble(), output)
    with output.open() as file:
        written = list(csv.DictReader(file))
    seeds, told = ["seed_1", "seed_epoch2"], ["attribute_texture", "ensemble", "trained_on"]
    assert list(written[0]) == ["AnnotationID", "label", "probability", *seeds, "PatientID", *told]
    assert {(row["ensemble"], row["trained_on"]) for row in written} == {("5" * 64, "light")}
    by_name = {found["AnnotationID"]: found for found in written}
    assert len(by_name) == len(written) == len(masked_rows)
    for row in masked_rows:
        found = by_name[row["AnnotationID"]]
        brightness = patch_of_whole_scan(cohort, row).mean(dtype=np.float64)
        assert float(found["seed_1"]) == pytest.approx(brightness, abs=1e-5)
        assert float(found["attribute_texture"]) == pytest.approx(5 * brightness, abs=5e-5)
        assert float(found["probability"]) == pytest.approx(0.25 * brightness + 0.75 * brightness**2, abs=1e-5)
    read = read_predictions([output], stored.table)
    assert read.ids == list(stored.table)
    labels = {row["AnnotationID"]: row["label"] for row in masked_rows}
    assert read.labels.tolist() == [labels[name] for name in read.ids]
    assert read.patients.tolist() == [int(name.startswith("12_")) for name in read.ids]


def test_undecided_nodules_are_predicted_and_left_out_of_the_figures(cohort, masked_rows, tmp_path, caplog):
    table = read_table(cohort.folder / "table.csv")
    undecided = masked_rows[0]["AnnotationID"]
    next(row for row in table.rows if row["AnnotationID"] == undecided)["label"] = None
    prepare(table, ScanSource(cohort.folder / "ct"), cohort.folder / "masks", tmp_path / "store", 1)
    stored = StoredNodules(tmp_path / "store")
    assert stored.table[undecided].cells["label"] == ""
    stored.predict(BrightnessEnsemble(), tmp_path / "p.csv")
    for known in (None, stored.table):
        predictions = read_predictions([tmp_path / "p.csv"], known)
        assert undecided not in predictions.ids
        assert len(predictions) == len(masked_rows) - 1
        assert f"1 of {len(masked_rows)} nodules have no label; left out" in caplog.text
        caplog.clear()
