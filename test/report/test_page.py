import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_ct
from evaluation.browser import CONTRASTS, SCREENS, TOO_WIDE, open_browser
from PIL import Image
from report.samples import PLATT, grey, make_findings, make_manifest, make_origin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from nodulemc.ensemble.calibration import apply_calibration
from nodulemc.report.explain import Explanation
from nodulemc.report.explain_check import Check, write_checks
from nodulemc.report.outline import path
from nodulemc.report.page import Origin, case_page
from nodulemc.report.words import facts, spoken

CAUTION = "slices of <5> mm & more"
WINDOWS = {"lung": (-1350, 150), "soft": (-160, 240)}
# The pixels of a plane's picture, and its path.
SHOWN = """
const figure = document.querySelector(`#${arguments[0]} [data-plane=${arguments[1]}]`);
const image = figure.querySelector("img");
await image.decode();
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
const context = canvas.getContext("2d");
context.drawImage(image, 0, 0);
const pixels = [...context.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, k) => k % 4 === 0);
return [canvas.width, canvas.height, pixels, figure.querySelector("path").getAttribute("d"), image.alt];
"""
TEXT_SIZES = """
return [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && [...e.childNodes].some(
  n => n.nodeType === 3 && n.data.trim())).map(e => parseFloat(getComputedStyle(e).fontSize));
"""
# Each picture's width and height in CSS pixels, its scale bar's width, and its line's height.
PICTURES = """
return [...document.querySelectorAll('#nodule-1 [data-plane]')].map(f => {
  const box = e => e.getBoundingClientRect();
  const picture = box(f.querySelector('.picture')), image = box(f.querySelector('img'));
  const svg = box(f.querySelector('svg'));
  const near = (a, b) => ['left', 'top', 'width', 'height'].every(side => Math.abs(a[side] - b[side]) < 0.1);
  const same = near(image, svg) && near(image, picture);
  return [picture.width, picture.height, box(f.querySelector('.bar')).width, same];
});
"""
TARGETS = """
return [...document.querySelectorAll('input')].filter(e => e.getClientRects().length).map(e => {
  const box = (e.type === 'checkbox' ? e.closest('label') : e).getBoundingClientRect();
  return [e.type, box.width, box.height];
});
"""


@pytest.fixture(scope="module")
def findings():
    return make_findings(("n1", "<script>alert(1)</script>"), warnings=(CAUTION,))


@pytest.fixture(scope="module")
def page(findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "page.html"
    origin = make_origin()
    origin = replace(origin, manifest=replace(origin.manifest, folder=folder))
    write_checks(origin.manifest, dict.fromkeys(("rim", "map"), Check(0.75, 0.9, 70)))
    first, *others = findings
    explained = [replace(first, explanation=Explanation({"rim": 0.125}, {(3, 3, 3): 0.05, (3, 3, 4): 0.35})), *others]
    page = case_page("ct & more.mha", explained, origin, series="1.2.3", explains=True)
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=SCREENS)
def browser(request, page):
    width, phone = request.param
    with open_browser(width, 844, phone=phone) as driver:
        driver.get(page.as_uri())
        yield driver


def shown(browser, plane, nodule="nodule-1"):
    browser.set_script_timeout(60)
    wrapped = f"const done = arguments[arguments.length - 1]; (async () => {{ {SHOWN} }})().then(done);"
    width, height, pixels, d, alt = browser.execute_async_script(wrapped, nodule, plane)
    return np.reshape(pixels, (height, width)), d, alt


def axial(z_offset, window):
    """The CT's slice around the first nodule's point, so many voxels above it."""
    hu = sitk.GetArrayFromImage(make_ct())
    image = make_ct()
    i, j, k = image.TransformPhysicalPointToIndex([*map(float, make_findings(("n1",))[0].prediction.nodule.point)])
    return grey(hu[k + z_offset, j - 31 : j + 32, i - 35 : i + 36], *WINDOWS[window])


def radio(browser, value):
    return browser.find_element(By.CSS_SELECTOR, f"#nodule-1 input[value={value}]")


def tap(browser, element):
    """As a finger does."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    box = browser.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", element
    )
    at = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}
    touch(browser, [at])


def touch(browser, places):
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [places[0]]})
    for place in places[1:]:
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [place]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_control_characters_in_names_are_escaped():
    findings = make_findings(("a\0b\u202ec",))
    page = case_page("ct\u202e\x07.mha", findings, make_origin())
    assert not {"\0", "\x07", "\u202e"} & {*page}
    assert page.count(r"ct\u202e\x07.mha") >= 2
    assert page.count(r"a\x00b\u202ec") >= 3


def test_console_is_silent_and_nothing_is_loaded(browser):
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_nothing_is_wider_than_the_window(browser):
    width, window, outside = browser.execute_script(TOO_WIDE)
    assert outside == []
    assert width <= window


def test_text_is_large_and_dark_enough(browser):
    assert min(browser.execute_script(TEXT_SIZES)) >= 12
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [entry for entry in contrasts if entry[0] < 4.5] == []


def test_controls_are_large_enough_for_a_finger(browser):
    targets = browser.execute_script(TARGETS)
    assert {kind for kind, *_ in targets} == {"radio", "checkbox", "range"}
    assert [target for target in targets if min(target[1:]) < 43.5] == []


def test_pictures_have_the_bodys_proportions_and_their_bars_10_mm(browser, findings):
    found = browser.execute_script(PICTURES)
    for (width, height, bar, same), picture in zip(found, findings[0].view.planes.values(), strict=True):
        assert same
        assert width / height == pytest.approx(picture.extent_mm[0] / picture.extent_mm[1], rel=0.01)
        assert bar / width == pytest.approx(10 / picture.extent_mm[0], rel=0.01)
    # One scale for all planes.
    assert np.ptp([bar for _, _, bar, _ in found]) < 1


def test_slider_by_key(browser, findings):
    view, mask = findings[0].view, findings[0].mask
    start = view.levels.index(view.centre[0])
    outlines = [path(field) for field in view.mask_planes(mask)["axial"]]
    pixels, d, alt = shown(browser, "axial")
    assert (pixels == axial(0, "lung")).all()
    assert d == outlines[start] != ""
    assert "through the point, lung window, with the mask's outline" in alt
    slider = browser.find_element(By.CSS_SELECTOR, "#nodule-1 input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    pixels, d, alt = shown(browser, "axial")
    assert (pixels == axial(2, "lung")).all()
    assert d == outlines[start + 2]
    said = f"{start + 3} of {len(view.levels)}, 3.0 mm above the point"
    assert said in alt
    assert slider.get_attribute("aria-valuetext") == f"slice {said}"
    assert browser.find_element(By.CSS_SELECTOR, "#nodule-1 .place").text == said
    # The coronal picture's line: the head is up.
    rows = view.planes["coronal"].size[1]
    top = browser.find_element(By.CSS_SELECTOR, "#nodule-1 .line").value_of_css_property("top")
    height = browser.find_element(By.CSS_SELECTOR, "#nodule-1 [data-plane=coronal] .picture").rect["height"]
    assert float(top.removesuffix("px")) / height == pytest.approx((rows - view.centre[0] - 2.5) / rows, abs=0.01)
    slider.send_keys(Keys.HOME)
    pixels, d, _ = shown(browser, "axial")
    assert (pixels == axial(-16, "lung")).all()
    assert d == ""
    assert shown(browser, "axial", "nodule-2")[1] != ""  # the others stay
    slider.send_keys(*[Keys.ARROW_RIGHT] * start)


def test_slider_by_touch(browser):
    slider = browser.find_element(By.CSS_SELECTOR, "#nodule-1 input[type=range]")
    before = int(slider.get_property("value"))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    left, top, width, height = browser.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", slider
    )
    y = top + height / 2
    touch(browser, [{"x": left + width / 2 + d * width / 40, "y": y} for d in range(17)])
    after = int(slider.get_property("value"))
    assert after > before + 5
    assert (shown(browser, "axial")[0] == axial(after - before, "lung")).all()
    browser.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        slider,
        before,
    )


def test_windows_by_key_and_touch(browser):
    radio(browser, "lung").send_keys(Keys.ARROW_RIGHT)
    pixels, _, alt = shown(browser, "axial")
    assert (pixels == axial(0, "soft")).all()
    assert "soft tissue window" in alt
    tap(browser, radio(browser, "lung"))
    assert (shown(browser, "axial")[0] == axial(0, "lung")).all()
    soft = shown(browser, "coronal")[0]
    tap(browser, radio(browser, "soft"))
    assert (shown(browser, "coronal")[0] != soft).any()
    tap(browser, radio(browser, "lung"))


def test_outline_can_be_left_out(browser):
    switch = browser.find_element(By.CSS_SELECTOR, "#nodule-1 input[type=checkbox]")
    switch.send_keys(Keys.SPACE)
    _, d, alt = shown(browser, "sagittal")
    assert d == ""
    assert "outline" not in alt
    tap(browser, switch.find_element(By.XPATH, ".."))
    assert shown(browser, "sagittal")[1] != ""


def test_a_screen_reader_has_a_name_for_everything(browser):
    nameless = browser.execute_script("""
      const named = e => e.alt || e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby');
      return [...document.querySelectorAll('img, input, nav, section')].filter(e => !named(e)).map(e => e.outerHTML);
    """)
    assert nameless == []
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    assert len(browser.find_elements(By.TAG_NAME, "main")) == 1
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_print(browser):
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5
    assert len(re.findall(rb"/Subtype\s*/Image\b", pdf)) >= 8


def test_names_cannot_break_the_page(browser, page):
    assert browser.find_element(By.TAG_NAME, "h1").text == "Lung nodules: ct & more.mha"
    assert "<script>alert(1)</script>" in browser.find_element(By.CSS_SELECTOR, "#nodule-2 h2").text
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_page_stands_without_its_script(page):
    """Planes through the point, in the lung window, with their outlines; nothing that would not work."""
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    first = re.search(r'data-plane="axial".*?base64,([^"]*)".*?<path d="([^"]*)"', text, re.DOTALL)
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(first[1])))) == axial(0, "lung")).all()
    assert first[2].startswith("M")
    assert re.findall(r'<div class="(controls|slider)"(?! hidden)', text) == []


def text_of(findings, **about):
    return re.sub(r"\s+", " ", re.sub(r"<script.*?</script>|<style.*?</style>", "", case_page(
        "ct.mha", findings, make_origin(**about)), flags=re.DOTALL))  # fmt: skip


def test_numbers_and_where_they_come_from(findings):
    text = text_of(findings)
    for shown in ("<b>0.250</b>", "<b>0.200</b>", "seed_3", "0.300", "50&nbsp;%", "phantoms &amp; more", "5a" * 32,
                  "Their weighted mean is 0.233", "not calibrated", "states no prevalence and no calibration",
                  "cpu, bf16", "4.2", "1 ground glass, 5 solid"):  # fmt: skip
        assert shown in text, shown
    size = findings[0].prediction.measurements
    for shown in (f"{size.volume_mm3:,.0f} mm³", f"{size.long_axis_mm:.1f} mm", f"<b>{size.size_mm} mm</b>"):
        assert shown in text, shown
    assert "missing: family history, emphysema, type, nodule count" in text
    assert f"{findings[0].prediction.risk['brock_parsimonious']['probability']:.3f}" in text


def test_the_scans_warnings_are_said_once(findings):
    text = text_of(findings)
    assert text.count("slices of &lt;5&gt; mm &amp; more") == 1
    assert "About the scan" in text
    one = text_of(findings[:1])
    assert "About the scan" not in one
    assert one.count("slices of &lt;5&gt; mm &amp; more") == 1


def test_calibrated_where_the_ensemble_has_a_map(findings):
    vote = (0.1 + 2 * 0.2 + 3 * 0.3) / 6
    expected = float(apply_calibration(vote, PLATT))
    text = text_of(findings[:1], calibration=PLATT)
    assert f"<span>Calibrated</span><b>{expected:.3f}</b>" in text
    assert "Where 9 % of all nodules are malignant" in text
    assert f"about {1000 * expected:.0f} of 1,000 nodules" in text
    origin = Origin(make_manifest(calibration=PLATT), "cpu", "fp32", True)
    applied = case_page("ct.mha", findings[:1], origin)
    assert f"<span>Before calibration</span><b>{vote:.3f}</b>" in applied
    assert "platt, for a prevalence of 0.09; applied" in applied


def test_untrained_weights_mean_nothing(findings):
    assert "The weights are untrained: the number means nothing." in text_of(findings, trained_on=None)


def test_without_a_decoder_there_is_no_outline_and_that_is_said():
    text = case_page("ct.mha", make_findings(masks=False), make_origin(decoder=False))
    assert "The ensemble has no decoder, so there is no outline and nothing is measured." in text
    assert "<path" not in text
    assert 'type="checkbox"' not in text


def test_an_explanation_that_nothing_has_checked_is_not_shown(findings):
    explained = [replace(findings[0], explanation=Explanation({"rim": 0.125}, {(3, 3, 3): 0.05}))]
    page = case_page("ct.mha", explained, make_origin(), explains=True)
    assert "these weights have not been checked on phantoms" in page
    assert "0.125" not in page


def test_an_empty_mask_and_no_nodule():
    findings = make_findings(("far",), warnings=("its mask is empty",))
    empty = findings[0].mask.__class__((40, 40, 20), np.zeros((1, 1, 1), np.float32), None, ())
    text = case_page("ct.mha", [findings[0].__class__(findings[0].prediction, findings[0].view, empty)], make_origin())
    assert "There is no mask, see the warnings." in text
    assert "0 nodules" in case_page("ct.mha", [], make_origin())


def test_whatever_is_found_is_named_with_its_unit():
    found = {
        "volume_doubling_time_days": 412.3,
        "volume_mm3": {"before": 91.0, "after": None},
        "growth_percent": -3.2,
        "matched": True,
        "dates": ["2020-01-01", "2021-01-01"],
        "long_axis_mm": 7.26,
        "mean_hu": -432.1,
    }
    assert {fact.name: fact.value for fact in facts(found)} == {
        "Volume doubling time": "412 days",
        "Volume before": "91 mm³",
        "Volume after": "not known",
        "Growth": "−3 %",
        "Matched": "yes",
        "Dates": "2020-01-01, 2021-01-01",
        "Long axis": "7.3 mm",
        "Mean HU": "−432 HU",
    }
    assert spoken("lung_rads_size") == "Lung-RADS size"
