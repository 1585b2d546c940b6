import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from cohort.made import DIAMETER_MM, ENSEMBLE, MEASURING, Segmenting, make_cohort, results, scan_file, uid
from digital_shapes import ball
from evaluation.browser import CONTRASTS, SCREENS, TOO_WIDE, open_browser
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from nodulemc import cli
from nodulemc.cohort.manifest import read_cohort_manifest
from nodulemc.cohort.pages import Pages, index_page, write_index
from nodulemc.cohort.read_scan import Job, Read, read_scan
from nodulemc.cohort.run import Task, run_cohort
from nodulemc.cohort.scoring import score_together
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.measure.mask import nodule_mask
from nodulemc.measure.risk import CATEGORIES
from nodulemc.measure.sizes import measure
from nodulemc.models.architecture import Architecture
from nodulemc.points.reading import Nodule
from nodulemc.quality import ScanWarnings
from nodulemc.report.page import Origin
from nodulemc.report.pictures import look_at_nodule

pytestmark = pytest.mark.heavy


class OnePass(Segmenting):
    """Its masks tell their patches by their size; they come with the findings alone."""

    findings = None

    def __init__(self):
        super().__init__()
        self.sizes = []

    def findings_and_masks(self, patches):
        self.sizes.append(len(patches))
        return *Segmenting().findings(patches), np.stack([own_ball(patch) for patch in patches])


def own_ball(patch):
    return ball(8 + 8 * patch.mean())


class Engine:
    """Scores one by one in this process, until it is interrupted before scan number ``until``."""

    def __init__(self, until=None):
        self.until = until
        self.read = []

    def outcomes(self, jobs):
        for k, job in enumerate(jobs):
            if k == self.until:
                raise KeyboardInterrupt
            reading = read_scan(job)
            self.read.append(job.scan.name)
            is_read = isinstance(reading, Read)
            yield job, score_together([reading], Segmenting())[0] if is_read else reading


def run(folder, output, *, until=None, pages=True, ensemble=MEASURING, **options):
    """A run with pages; returns the scans that were read."""
    output.mkdir(exist_ok=True)
    scans = read_cohort_manifest(folder)
    engine = Engine(until)
    origin = Origin(Segmenting.manifest, "cpu", ensemble.precision, False)
    made = Pages(output / "pages", [scan.name for scan in scans], origin) if pages else None
    try:
        run_cohort(Task(scans, folder, output, ensemble, pages=made, **options), engine)
    except KeyboardInterrupt:
        return engine.read
    write_index(output / "pages", output)
    return engine.read


def page_of(output, number):
    return output / "pages" / "scans" / f"{uid(number)}.html"


def index_of(output):
    return (output / "pages" / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def luna(tmp_path):
    return make_cohort(tmp_path / "luna", 3)


def test_each_scan_has_a_page_with_its_numbers(luna, tmp_path):
    run(luna, tmp_path / "out")
    for number, predictions in enumerate(results(tmp_path / "out").values()):
        text = page_of(tmp_path / "out", number).read_text(encoding="utf-8")
        assert f"Lung nodules: {scan_file(number)}" in text
        assert text.count('<section class="nodule"') == len(predictions)
        assert all(f"<b>{probability:.3f}</b>" in text for _, probability, *_ in predictions)
        assert f'href="scans/{uid(number)}.html">{scan_file(number)}</a>' in index_of(tmp_path / "out")


def test_masks_and_sizes_are_those_of_the_whole_scan(luna, tmp_path):
    run(luna, tmp_path / "out")
    volume = read_volume(luna / scan_file(1))
    for number, row in enumerate(list(csv.DictReader((luna / "table.csv").read_text().splitlines()))[1:3], start=1):
        point = [float(row[name]) for name in ("CoordX", "CoordY", "CoordZ")]
        truth = measure(volume, nodule_mask(volume, point, ball(DIAMETER_MM)))
        text = page_of(tmp_path / "out", 1).read_text(encoding="utf-8")
        own = text[text.index(f'id="nodule-{number}"') :]
        assert re.search(r"Volume</th><td>([\d,]+) mm³", own)[1] == f"{truth.volume_mm3:,.0f}"
        assert re.search(r"Mean HU</th><td>(\S+) HU", own)[1] == f"{truth.mean_hu:.0f}".replace("-", "−")
        mask = nodule_mask(volume, point, ball(DIAMETER_MM))
        planes = look_at_nodule(volume, Nodule("n", tuple(point))).mask_planes(mask)
        data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', own)[1])
        assert [bool(d) for d in data["planes"]["axial"]["outlines"]] == [
            bool((field > 0.5).any()) for field in planes["axial"]
        ]


def test_results_are_the_same_with_and_without_pages(luna, tmp_path):
    run(luna, tmp_path / "with")
    run(luna, tmp_path / "without", pages=False)
    assert results(tmp_path / "with") == results(tmp_path / "without")


def test_masks_of_many_nodules_come_a_few_at_a_time_with_the_findings(luna):
    reads = [read_scan(Job(scan, measure=True)) for scan in read_cohort_manifest(luna)] * 4
    scorer = OnePass()
    scored = score_together(reads, scorer)
    total = sum(len(read.nodules) for read in reads)
    assert max(scorer.sizes) == 4 < sum(scorer.sizes) == total
    without = [replace(read, parts=()) for read in reads]
    for one, plain in zip(scored, score_together(without, Segmenting()), strict=True):
        assert [p.probability for p in one.predictions] == [p.probability for p in plain.predictions]
        assert plain.masks == ()
        for mask, patch, part, nodule in zip(
            one.masks, one.read.patches, one.read.parts, one.read.nodules, strict=True
        ):
            truth = nodule_mask(Volume(part, luna), nodule.point, own_ball(patch))
            assert np.array_equal(mask.probability, truth.probability)
    empty = replace(reads[0], nodules=(), patches=reads[0].patches[:0], parts=(), warnings=ScanWarnings((), ()))
    assert score_together([empty], Segmenting())[0].masks == ()


def test_an_interrupted_run_goes_on(luna, tmp_path):
    out = tmp_path / "out"
    run(luna, out, until=2)
    assert page_of(out, 1).exists()
    assert not page_of(out, 2).exists()
    assert run(luna, out) == [scan_file(2)]
    assert page_of(out, 2).exists()
    assert run(luna, out) == []


def test_a_page_never_comes_before_its_result(luna, tmp_path, monkeypatch):
    out = tmp_path / "out"
    record = "nodulemc.cohort.results_db.ResultsDb.record"
    with monkeypatch.context() as patched:
        patched.setattr(record, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run(luna, out)
    assert [*(out / "pages" / "scans").iterdir()] == []
    with monkeypatch.context() as patched:
        patched.setattr(Pages, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run(luna, out)
    assert len(results(out)) == 1
    assert run(luna, out) == [scan_file(k) for k in range(3)]


def test_missing_pages_are_made_of_results_that_stand(luna, tmp_path):
    out = tmp_path / "out"
    run(luna, out, pages=False)
    before = results(out)
    assert len(run(luna, out)) == 3
    assert results(out) == before
    page_of(out, 1).unlink()
    assert run(luna, out) == [scan_file(1)]
    (page_of(out, 0)).write_text("half a p")
    assert run(luna, out) == [scan_file(0)]
    assert "Lung nodules" in page_of(out, 0).read_text(encoding="utf-8")


def test_a_result_stands_though_its_page_cannot_be_made(luna, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    run(luna, out)
    before = results(out)
    page_of(out, 1).unlink()
    monkeypatch.setattr("nodulemc.report.pictures.look_at_nodule", lambda *_: 1 / 0)
    run(luna, out)
    assert results(out) == before
    assert "no page: " in caplog.text
    assert "no page: run again" in index_of(out)


def test_a_changed_scan_has_a_new_page_and_a_lost_one_none(luna, tmp_path):
    out = tmp_path / "out"
    run(luna, out)
    before = page_of(out, 0).read_bytes()
    (luna / scan_file(0)).write_bytes((luna / scan_file(2)).read_bytes())
    (luna / scan_file(1)).unlink()
    assert set(run(luna, out)) == {scan_file(0), scan_file(1)}
    assert page_of(out, 0).read_bytes() != before
    assert not page_of(out, 1).exists()
    assert ">failed<span" in index_of(out)
    assert f"{uid(1)}.html" not in index_of(out)


def test_touched_files_keep_their_page(luna, tmp_path):
    out = tmp_path / "out"
    run(luna, out)
    made = page_of(out, 0).stat().st_mtime_ns
    (luna / scan_file(0)).touch()
    assert run(luna, out) == [scan_file(0)]  # its bytes are looked at, no more
    assert page_of(out, 0).stat().st_mtime_ns == made


def test_other_weights_have_other_pages(luna, tmp_path):
    out = tmp_path / "out"
    run(luna, out)
    other = replace(MEASURING, weights="other")
    assert len(run(luna, out, ensemble=other)) == 3


def test_the_command_makes_pages_with_an_ensemble_without_decoders(luna, small_backbone, tmp_path, capsys):
    from ensembles import make_untrained_ensemble

    make_untrained_ensemble(tmp_path / "e", architecture=Architecture(small_backbone))
    words = [
        "cohort",
        luna,
        "--output",
        tmp_path / "out",
        "--resources",
        tmp_path / "e",
        "--report",
        tmp_path / "pages",
    ]
    assert cli.main([*map(str, words), "--device", "cpu", "--precision", "fp32", "--workers", "1"]) == 0
    assert f"written: {tmp_path / 'pages' / 'index.html'}\n" in capsys.readouterr().out
    text = (tmp_path / "pages" / "scans" / f"{uid(1)}.html").read_text(encoding="utf-8")
    assert "The ensemble has no decoder" in text
    assert "The weights are untrained: the number means nothing." in text


ROWS = 600


def made_rows(number):
    """Rows of the index of a cohort of so many scans."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(number):
        failed = k % 50 == 7
        highest = None if failed else float(rng.uniform())
        row = {"scan": f"ct/patient {k} <i>.mha", "link": f"scans/{k}.html", "highest": highest}
        row |= {"status": "failed" if failed else "done", "error": "cannot read" if failed else ""}
        row |= {"nodules": [] if failed else [(f"n{k}", highest)] * (1 + k % 3)}
        row |= {"further": {} if failed else {"long_axis_mm": 4 + k % 300 / 10, "brock_full": highest**2,
                                              "lung_rads_size": CATEGORIES[k % 4]}}  # fmt: skip
        rows.append(row | {"warnings": ["slices of 5 mm"] if k % 4 == 0 else []})
    return rows


@pytest.fixture(scope="module", params=SCREENS)
def index(request, tmp_path_factory):
    rows = made_rows(ROWS)
    path = tmp_path_factory.mktemp("index") / "index.html"
    path.write_text(index_page(rows, ENSEMBLE), encoding="utf-8")
    width, phone = request.param
    with open_browser(width, 844, phone=phone) as driver:
        driver.get(path.as_uri())
        yield driver, rows


def shown(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.dataset.scan)"
    )


def press(driver, key):
    driver.find_element(By.CSS_SELECTOR, f"[data-key={key}] button").click()


def test_index_is_silent_narrow_and_dark_enough(index):
    driver, _ = index
    assert driver.get_log("browser") == []
    width, window, outside = driver.execute_script(TOO_WIDE)
    assert outside == []
    assert width <= window
    driver.execute_script("document.querySelectorAll('tbody tr').forEach((r, k) => r.hidden = k > 30)")
    assert [entry for entry in driver.execute_script(CONTRASTS) if entry[0] < 4.5] == []
    driver.execute_script("document.querySelector('form').dispatchEvent(new Event('input'))")


def test_index_sorts(index):
    driver, rows = index
    press(driver, "probability")
    key = lambda row: -1 if row["highest"] is None else row["highest"]  # noqa: E731
    assert shown(driver) == [row["scan"] for row in sorted(rows, key=key, reverse=True)]
    press(driver, "probability")
    assert shown(driver) == [row["scan"] for row in sorted(rows, key=key)]
    press(driver, "scan")
    assert shown(driver) == [row["scan"] for row in rows]
    head = driver.find_element(By.CSS_SELECTOR, "[data-key=scan]")
    assert head.get_attribute("aria-sort") == "ascending"


def test_index_filters(index):
    driver, rows = index
    least = driver.find_element(By.NAME, "least_probability")
    least.send_keys("0.9")
    high = [row for row in rows if row["highest"] is not None and row["highest"] >= 0.9]
    assert shown(driver) == [row["scan"] for row in high]
    Select(driver.find_element(By.NAME, "warned")).select_by_value("yes")
    assert shown(driver) == [row["scan"] for row in high if row["warnings"]]
    assert driver.find_element(By.CSS_SELECTOR, "form [role=status]").text.startswith(f"{len(shown(driver))} of {ROWS}")
    least.clear()
    Select(driver.find_element(By.NAME, "warned")).select_by_value("")
    Select(driver.find_element(By.NAME, "status")).select_by_value("failed")
    assert shown(driver) == [row["scan"] for row in rows if row["status"] == "failed"]
    Select(driver.find_element(By.NAME, "status")).select_by_value("")
    driver.find_element(By.NAME, "text").send_keys("Patient 299")
    assert shown(driver) == [row["scan"] for row in rows if "patient 299" in row["scan"]]
    driver.find_element(By.NAME, "text").clear()
    driver.find_element(By.NAME, "text").send_keys(" ")


def test_index_sorts_and_filters_by_sizes_and_risk(index):
    driver, rows = index
    for key in ("long_axis_mm", "brock_full", "lung_rads_size"):
        press(driver, "scan")
        press(driver, key)
        known = [row for row in rows if key in row["further"]]
        order = [row["scan"] for row in sorted(known, key=lambda row: row["further"][key], reverse=True)]
        found = shown(driver)
        value = {row["scan"]: row["further"].get(key) for row in rows}
        assert [value[scan] for scan in found[: len(known)]] == [value[scan] for scan in order]
    axis = driver.find_element(By.NAME, "least_long_axis_mm")
    axis.send_keys("30.5")
    Select(driver.find_element(By.NAME, "least_lung_rads_size")).select_by_value("4A")
    fits = {
        row["scan"]
        for row in rows
        if row["further"].get("long_axis_mm", 0) >= 30.5 and row["further"]["lung_rads_size"] in ("4A", "4B")
    }
    assert set(shown(driver)) == fits
    axis.clear()
    axis.send_keys(" ")
    Select(driver.find_element(By.NAME, "least_lung_rads_size")).select_by_value("")
    assert len(shown(driver)) == len(rows)


def test_names_cannot_break_the_index(index):
    driver, _ = index
    assert driver.find_elements(By.TAG_NAME, "i") == []
