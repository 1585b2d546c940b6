import base64
import re

import numpy as np
import pytest
from evaluation.browser import CONTRASTS, SCREENS, TOO_WIDE, open_browser
from evaluation.samples import make_predictions

from nodulemc.evaluation.metrics import evaluate
from nodulemc.evaluation.report import render_report
from nodulemc.evaluation.submission import matched

# Where a ring of the ROC curve lies between the outermost grid lines.
RING = """
const svg = document.querySelector('svg');
const lines = [...svg.querySelectorAll('.grid')].map(l => ['x1', 'x2', 'y1', 'y2'].map(a => +l.getAttribute(a)));
const xs = lines.flatMap(l => l.slice(0, 2)), ys = lines.flatMap(l => l.slice(2));
const ring = svg.querySelectorAll('circle')[arguments[0]];
return [(ring.getAttribute('cx') - Math.min(...xs)) / (Math.max(...xs) - Math.min(...xs)),
        (Math.max(...ys) - ring.getAttribute('cy')) / (Math.max(...ys) - Math.min(...ys))];
"""
# Each forest row's name, its AUC, and the dot's place between the axis' outermost ticks.
FOREST = """
const middle = e => { const b = e.getBoundingClientRect(); return b.left + b.width / 2; };
const ends = [...document.querySelectorAll('.scale-row span')];
const axis = [ends[0], ends[ends.length - 1]].map(e => [+e.textContent, middle(e)]);
const box = document.querySelector('.track').getBoundingClientRect();
const apart = Math.max(Math.abs(axis[0][1] - box.left), Math.abs(axis[1][1] - box.right));
if (apart > 1) return 'the axis does not fill its column';
return [...document.querySelectorAll('.track')].map(track => {
  const x = middle(track.querySelector('.dot'));
  const at = (x - axis[0][1]) / (axis[1][1] - axis[0][1]);
  return [axis[0][0] + at * (axis[1][0] - axis[0][0]), +track.nextElementSibling.querySelector('b').textContent];
});
"""


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(matched(make_predictions(seeds=2), None), 200)


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    patch = np.random.default_rng(0).uniform(size=(64, 64, 64)).astype(np.float32)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(evaluation, lambda _: patch), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[(390, True), (1280, False)], ids=["phone", "desktop"])
def browser(request, page):
    width, phone = request.param
    with open_browser(width, 844, phone=phone) as driver:
        driver.get(page.as_uri())
        yield driver


@pytest.mark.heavy
def test_console_is_silent_and_nothing_is_loaded(browser):
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


@pytest.mark.heavy
def test_nothing_is_cut_off_at_the_side(browser):
    width, window, outside = browser.execute_script(TOO_WIDE)
    assert outside == []
    assert width <= window


@pytest.mark.parametrize("screen", SCREENS)
def test_marks_of_small_samples_are_not_cut_off(screen, tmp_path):
    width, phone = screen
    page = tmp_path / "small.html"
    small = evaluate(matched(make_predictions(nodules=20, patients=20, seeds=2), None), 50)
    page.write_text(render_report(small, lambda _: None), encoding="utf-8")
    with open_browser(width, 844, phone=phone) as driver:
        driver.get(page.as_uri())
        assert driver.find_elements("css selector", ".forest .value span")
        content, window, outside = driver.execute_script(TOO_WIDE)
    assert window <= width
    assert outside == []
    assert content <= window


@pytest.mark.heavy
def test_text_is_large_and_dark_enough(browser):
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map("
        "t => parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getCTM().a, t.getCTM().b))"
    )
    assert min(sizes) > 8.5
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [entry for entry in contrasts if entry[0] < 4.5] == []


@pytest.mark.heavy
def test_pictures_show(browser):
    widths = browser.execute_script("return [...document.querySelectorAll('img')].map(i => [i.naturalWidth, i.width])")
    assert len(widths) == 2 * 6 * 3
    assert all(natural == 160 and shown > 60 for natural, shown in widths)


@pytest.mark.heavy
def test_rings_lie_at_the_operating_points(browser, evaluation):
    at_specificity = evaluation.metrics["sensitivity_at_specificity"]["0.90"]["value"]
    at_sensitivity = evaluation.metrics["specificity_at_sensitivity"]["0.95"]["value"]
    assert browser.execute_script(RING, 0) == pytest.approx([0.1, at_specificity], abs=0.002)
    assert browser.execute_script(RING, 3) == pytest.approx([1 - at_sensitivity, 0.95], abs=0.002)


@pytest.mark.heavy
def test_forest_dots_lie_at_their_aucs(browser):
    rows = browser.execute_script(FOREST)
    assert isinstance(rows, list), rows
    assert len(rows) >= 1 + 3 + 2 + 5 + 2 + 4
    for place, auc in rows:
        assert place == pytest.approx(auc, abs=0.006)


@pytest.mark.heavy
def test_print(browser):
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5


def test_no_address_of_the_network_is_in_the_page(page):
    text = page.read_text(encoding="utf-8")
    assert "http" not in text
    assert "<script" not in text


def test_names_cannot_break_the_page(evaluation):
    sample = make_predictions()
    sample = sample.take(np.arange(len(sample)))
    sample.ids[:] = [f"<script>{name}" for name in sample.ids]
    submission = matched(sample, None)
    submission.omitted.append("<img>")
    text = render_report(evaluate(submission, 10))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<img>" not in text


def test_what_does_not_match_is_said():
    submission = matched(make_predictions(), None)
    submission.omitted.extend(["n1", "n2"])
    submission.duplicate.append("d1")
    text = render_report(evaluate(submission, 10))
    assert "2 omitted nodules." in text
    assert "1 duplicate nodule." in text
    assert "unknown nodule" not in text


def test_a_note_is_shown(evaluation):
    assert "The weights are untrained &amp; so on." in render_report(
        evaluation, note="The weights are untrained & so on."
    )


def test_most_wrong_cases_come_first(evaluation):
    sample = evaluation.submission.predictions
    malignant = [p for p, label in zip(sample.probabilities, sample.labels, strict=True) if label]
    shown = re.search(r"Malignant, rated low.*?</section>", render_report(evaluation), re.DOTALL)[0]
    listed = [float(value) for value in re.findall(r'class="probability">([\d.]+)<', shown)]
    assert listed == pytest.approx(sorted(malignant)[:6], abs=5e-4)


@pytest.mark.heavy
def test_a_set_without_interval_or_subgroups_has_a_report():
    sample = make_predictions(nodules=30, patients=20).take(np.array([0, 1, 2, 3]))
    labels = np.array([1, 0, 0, 0])
    for cells in sample.columns:
        cells.clear()
    tiny = matched(type(sample)(**{**vars(sample), "labels": labels, "folds": None}), None)
    assert "no interval" in render_report(evaluate(tiny, 10))
