"""`nodulemc predict --prior`, on drawn chests whose nodules' sizes and whose motion are known."""

import csv
import json
import math
import subprocess
import sys
from datetime import date
from typing import ClassVar

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch
from conftest import centre_of, make_ct, rotation
from dicom import change_dicom, write_dicom_series
from drawn_chest import CENTRE, NODULE, draw_chest, rigid

from nodulemc import cli
from nodulemc.commands import predict
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.measure import matching
from nodulemc.measure.dates import scan_date
from nodulemc.measure.growth import general_warnings, read_prior, volume_change_percent, volume_doubling_time_days
from nodulemc.measure.registration import Registration

pytestmark = pytest.mark.heavy

PLACES = [CENTRE + place for place in ((10.0, 5.0, -15.0), (-12.0, -8.0, 25.0))]
BEFORE, AFTER = (8.0, 9.0), (10.0, 9.3)
MOTION = rigid()
YEAR = ("--date", "2021-03-01", "--prior-date", "2020-03-01")  # 2020 is a leap year: 365 days


class Dense(MeanOfPatch):
    """An ensemble whose masks are what is dense."""

    def mask_probabilities(self, patches):
        return patches.astype(np.float64)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    moved = [MOTION.TransformPoint(place.tolist()) for place in PLACES]
    drawn = {
        "now": (draw_chest(zip(PLACES, AFTER, strict=True), spacing=(0.9, 0.9, 1.0), edge_mm=0.9), PLACES),
        "prior": (draw_chest(zip(PLACES, BEFORE, strict=True), motion=MOTION, spacing=(0.8, 0.9, 1.1), edge_mm=0.9,
                             direction=rotation(10, -5, 15)), moved),
        "stranger": (draw_chest(zip(PLACES, BEFORE, strict=True), seed=1, motion=MOTION), moved),
    }  # fmt: skip
    for name, (volume, points) in drawn.items():
        sitk.WriteImage(volume.image, str(folder / f"{name}.mha"))
        write_points(folder / f"{name}.json", points)
    return folder


def write_points(path, points, names=("a", "b")):
    content = [{"name": n, "point": [float(c) for c in p]} for n, p in zip(names, points, strict=False)]
    path.write_text(json.dumps({"points": content}))


@pytest.fixture(autouse=True)
def _dense(monkeypatch):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Dense())


class Registered(Registration):
    """Scans that are laid over each other once for all tests; each has files of its own."""

    done: ClassVar[dict] = {}

    def __init__(self, scan, earlier):
        self.scans = scan, earlier

    def around(self, point, nodule):
        files = tuple(scan.source for scan in self.scans)
        if files not in self.done:
            self.done[files] = Registration(*self.scans)
        place = (*files, *point, nodule.probability.tobytes())
        if place not in self.done:
            self.done[place] = self.done[files].around(point, nodule)
        return self.done[place]


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(matching, "Registration", Registered)


def words(scans, *options, prior="prior", points=None):
    prior_points = points or scans / f"{prior}.json"
    given = ["predict", scans / "now.mha", "--points", scans / "now.json", "--prior", scans / f"{prior}.mha"]
    return [*map(str, [*given, "--prior-points", prior_points, *options])]


def grown(scans, tmp_path, *options, **which):
    output = tmp_path / "out.json"
    assert cli.main(words(scans, "--output", output, *options, **which)) == 0
    return json.loads(output.read_text())["points"]


@pytest.mark.parametrize(
    ("before", "after", "days", "expected"),
    [
        (100, 200, 90, 90),  # doubled
        (100, 400, 90, 45),  # doubled twice
        (200, 100, 90, -90),  # halved
        (100, 125, 365, 365 * 0.693147 / 0.223144),  # +25 %: ln 2 and ln 1.25 from tables
        (100, 100, 90, None),
        (100, 200, 0, None),
    ],
)
def test_doubling_times_worked_out_by_hand(before, after, days, expected):
    found = volume_doubling_time_days(before, after, days)
    assert found == (expected if expected is None else pytest.approx(expected, rel=1e-5))
    assert volume_change_percent(before, after) == pytest.approx(after - before if before == 100 else -50)


def test_growth_of_two_nodules_between_two_scans(scans, tmp_path):
    first, second = grown(scans, tmp_path, *YEAR)
    growth = first["growth"]
    assert growth["prior_nodule"] == "a"
    assert growth["interval_days"] == 365
    assert growth["prior_volume_mm3"] == pytest.approx(math.pi / 6 * 8**3, rel=0.04)
    assert growth["volume_change_percent"] == pytest.approx(100 * (1.25**3 - 1), abs=6)
    assert growth["volume_doubling_time_days"] == pytest.approx(365 * math.log(2) / math.log(1.25**3), rel=0.06)
    ratio = first["measurements"]["volume_mm3"] / growth["prior_volume_mm3"]
    assert growth["volume_doubling_time_days"] == pytest.approx(365 * math.log(2) / math.log(ratio))
    assert growth["exceeds_error"] is True
    assert growth["prior_distance_mm"] < 0.5
    assert growth["registration_similarity"] > 0.7
    assert not [warning for warning in first["warnings"] if "error of measuring" in warning]
    growth = second["growth"]
    assert (growth["prior_nodule"], growth["exceeds_error"]) == ("b", False)
    assert growth["volume_change_percent"] == pytest.approx(100 * ((9.3 / 9) ** 3 - 1), abs=6)
    (said,) = [warning for warning in second["warnings"] if "error of measuring" in warning]
    assert said.endswith(" % is within the error of measuring, up to 25 % (BTS 2015)")


def test_csv_and_table_show_it(scans, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert cli.main(words(scans, "--output", output, *YEAR)) == 0
    first, _ = csv.DictReader(output.read_text().splitlines())
    assert [*first][-8:] == [
        "prior_nodule", "prior_volume_mm3", "interval_days", "volume_change_percent", "volume_doubling_time_days",
        "exceeds_error", "prior_distance_mm", "registration_similarity",
    ]  # fmt: skip
    assert float(first["volume_change_percent"]) == pytest.approx(95, abs=6)
    capsys.readouterr()
    assert cli.main(words(scans, *YEAR)) == 0
    header, line, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[-4:] == ["change", "%", "doubling", "d"]
    change, doubling = line.split()[-2:]
    assert change == f"{float(first['volume_change_percent']):+.0f}"
    assert doubling == f"{float(first['volume_doubling_time_days']):.0f}"


@pytest.mark.parametrize(
    ("options", "days", "said"),
    [
        ((), None, "no doubling time: a scan's date is not known; give --date and --prior-date"),
        (("--date", "2021-03-01"), None, "no doubling time: a scan's date is not known; give --date and --prior-date"),
        (("--date", "2021-03-01", "--prior-date", "2021-03-01"), 0,
         "no doubling time: both scans are of the same date"),
    ],
)  # fmt: skip
def test_without_an_interval_there_is_growth_but_no_doubling_time(scans, tmp_path, options, days, said):
    first, _ = grown(scans, tmp_path, *options)
    assert said in first["warnings"]
    assert first["growth"]["volume_change_percent"] == pytest.approx(95, abs=6)
    assert (first["growth"]["interval_days"], first["growth"]["volume_doubling_time_days"]) == (days, None)


def check_none(points, said):
    for point in points:
        assert set(point["growth"].values()) == {None}
        assert [warning for warning in point["warnings"] if said in warning]
        assert point["measurements"]["volume_mm3"] > 0


def test_dates_that_are_reversed_give_no_growth(scans, tmp_path, caplog):
    found = grown(scans, tmp_path, "--date", "2020-03-01", "--prior-date", "2020-03-31")
    check_none(found, "no growth: the prior scan is 30 days later; swap the scans, or correct the dates")
    assert "not found again" not in caplog.text  # nothing was looked for


def test_one_scan_given_twice_gives_no_growth(scans, tmp_path, caplog):
    found = grown(scans, tmp_path, *YEAR, "--prior", scans / "now.mha", points=scans / "now.json")
    check_none(found, "no growth: the prior scan is this scan: all voxels are the same")
    assert "not found again" not in caplog.text


def test_a_nodule_that_a_scan_cuts_gives_no_growth(scans, tmp_path, caplog):
    prior = read_volume(scans / "prior.mha").image
    point = MOTION.TransformPoint(PLACES[0].tolist())
    _, _, middle = prior.TransformPhysicalPointToIndex(point)
    cut = sitk.RegionOfInterest(prior, [*prior.GetSize()[:2], prior.GetSize()[2] - middle], [0, 0, middle])
    sitk.WriteImage(cut, str(tmp_path / "cut.mha"))
    first, second = grown(scans, tmp_path, *YEAR, "--prior", tmp_path / "cut.mha", points=scans / "prior.json")
    check_none([first], "no growth: the mask of 'a' of the prior scan is cut off at the edge of the scan")
    assert second["growth"]["prior_nodule"] == "b"
    assert "not found again" not in caplog.text


def test_prior_nodules_that_are_missing_now_are_named_once_each(scans, tmp_path, caplog):
    points = tmp_path / "three.json"
    moved = [MOTION.TransformPoint(place.tolist()) for place in PLACES]
    # The third has the first one's name.
    write_points(points, [*moved, np.add(moved[0], (0, 0, 25))], ("a", "b", "a"))
    first, second = grown(scans, tmp_path, *YEAR, points=points)
    assert [first["growth"]["prior_nodule"], second["growth"]["prior_nodule"]] == ["a", "b"]
    assert f"{scans / 'prior.mha'}: not found again: 'a'" in caplog.messages


def test_another_patients_scan_gives_no_growth(scans, tmp_path):
    check_none(grown(scans, tmp_path, *YEAR, prior="stranger"), "no growth: the lung around it does not fit")


def test_a_nodule_that_is_new_has_no_growth(scans, tmp_path, caplog):
    points = tmp_path / "one.json"
    write_points(points, [MOTION.TransformPoint(PLACES[0].tolist())])
    first, second = grown(scans, tmp_path, *YEAR, points=points)
    assert "not found again" not in caplog.text
    assert first["growth"]["prior_nodule"] == "a"
    check_none([second], "no growth: no point of the prior scan is within 10 mm of its place there; the nearest is 4")


def test_a_prior_nodule_without_a_mask_gives_no_growth(scans, tmp_path, caplog):
    points = tmp_path / "off.json"
    beside = np.add(MOTION.TransformPoint(PLACES[0].tolist()), (0, 0, 9.5))
    write_points(points, [beside, MOTION.TransformPoint(PLACES[1].tolist())])
    first, second = grown(scans, tmp_path, *YEAR, points=points)
    check_none([first], "no growth: the mask of 'a' of the prior scan is missing")
    assert "not found again" not in caplog.text
    assert second["growth"]["prior_nodule"] == "b"


def test_a_mask_that_is_cut_off_gives_no_growth(scans, tmp_path, monkeypatch):
    class Rods(Dense):
        """Masks that reach the edges of their cubes."""

        def mask_probabilities(self, patches):
            found = super().mask_probabilities(patches)
            found[:, 31:33, 31:33, :] = 1
            return found

    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: Rods())
    check_none(grown(scans, tmp_path, *YEAR), "no growth: its mask is cut off at the edge of its cube")


def test_thick_slices_and_what_is_said_of_the_prior_scan_stand_beside_growth(scans, tmp_path):
    thick = draw_chest(zip(PLACES, BEFORE, strict=True), spacing=(1.2, 1.2, 4.0))
    sitk.WriteImage(thick.image, str(tmp_path / "thick.mha"))
    first, _ = grown(scans, tmp_path, *YEAR, "--prior", tmp_path / "thick.mha", points=scans / "now.json")
    assert first["growth"]["prior_nodule"] == "a"
    said = [warning for warning in first["warnings"] if warning.startswith("prior scan: ")]
    assert "prior scan: slice spacing 4.00 mm is outside the training data's 1 to 3.2 mm" in said
    (warning,) = [warning for warning in said if "too thick" in warning]
    assert warning.startswith("prior scan: slices of 4.00 mm are too thick to tell the growth of a nodule of ")


def test_what_belongs_together_is_asked_for_before_any_work(scans, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load_ensemble", lambda args, **wanted: pytest.fail("the weights were loaded"))
    base = ["predict", str(scans / "now.mha"), "--points", str(scans / "now.json")]
    for options, message in (
        (["--prior", scans / "prior.mha"], "--prior without --prior-points: "),
        (["--prior-points", scans / "prior.json"], "--prior-points without --prior: "),
        (["--date", "2020-01-01"], "--date without --prior: "),
        (["--prior-series", "1.2"], "--prior-series without --prior: "),
    ):
        assert cli.main([*base, *map(str, options)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
    for text in ("2021-02-29", "01.02.2020", "2020-1-1", "20200101", "2020-01-01T00", "٢٠٢٠-01-01", ""):
        assert cli.main(words(scans, "--prior-date", text)) == 2
        assert capsys.readouterr().err.startswith(f"error: --prior-date {text}".strip())
    assert cli.main(words(scans, prior="none")) == 2
    assert "none.mha" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"AcquisitionDate": "20200229", "SeriesDate": "20200301", "StudyDate": "20200302"}, "2020-02-29"),
        ({"AcquisitionDateTime": "20200228123000.5+0100", "StudyDate": "20200302"}, "2020-02-28"),
        ({"SeriesDate": "20200301", "StudyDate": "20200302"}, "2020-03-01"),
        ({"AcquisitionDate": "00000000", "SeriesDate": "20190229", "StudyDate": "1992.03.02"}, "1992-03-02"),
        ({"StudyDate": "2020"}, None),
        ({"StudyDate": ""}, None),
        ({}, None),
    ],
)
def test_a_scans_date_is_the_best_that_its_header_states(stated, expected):
    found = scan_date(Volume(sitk.Image([2, 2, 2], sitk.sitkInt16), "ct", acquisition=stated))
    assert (found and found.isoformat()) == expected


@pytest.mark.parametrize(
    ("given", "days"),
    [((None, None), 366), ((date(2021, 6, 1), None), 517), ((None, date(2020, 12, 31)), 1)],
)
def test_dates_of_dicom_series_count_unless_others_are_given(tmp_path, given, days):
    uids = []
    for name, day in (("now", "20210101"), ("prior", "20200101")):
        uids.append(write_dicom_series(make_ct(size=(20, 20, 8)), tmp_path / name))
        files = (tmp_path / name).iterdir()
        change_dicom(*files, AcquisitionDate=day, SeriesDate="20220202", StudyDate="20220202", PatientID=name)
    write_points(tmp_path / "p.json", [centre_of(make_ct(size=(20, 20, 8)))])
    volume = read_volume(tmp_path / "now")
    earlier = read_prior(tmp_path, tmp_path / "p.json", volume, given, series=uids[1])
    assert earlier.days == days
    assert earlier.volume.series_uid == uids[1]
    assert "the prior scan states another PatientID" in [*general_warnings(volume, earlier)]


def test_without_a_prior_scan_nothing_of_it_is_imported():
    code = (
        "import sys, nodulemc.commands.predict, nodulemc.prediction, nodulemc.output.detailed; "
        "print([m for m in sys.modules if 'nodulemc.measure' in m or 'nodulemc.slicer_m' in m])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_nodules_are_drawn_as_the_thresholds_need_them():
    assert (NODULE - 900) / 2 == -300
