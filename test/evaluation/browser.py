"""A real headless browser for the tests of pages (Debian: chromium and chromium-driver)."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Chromium's first start on a busy machine is slow.
_TIMEOUT_S = 120
# Of a fixture whose value is the width and whether it is a phone; a browser's start makes every test of it heavy.
SCREENS = [
    pytest.param((360, True), id="phone", marks=pytest.mark.heavy),
    pytest.param((1280, False), id="desktop", marks=pytest.mark.heavy),
]
# Text colour on the nearest background that is not transparent, WCAG 2.2's contrast ratio.
CONTRASTS = """
const channel = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const luminance = rgb => rgb.slice(0, 3).map(channel).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const parse = text => text.match(/[\\d.]+/g).map(Number);
const visible = e => e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
return [...document.querySelectorAll('body *')].filter(visible).map(e => {
  const style = getComputedStyle(e);
  let below = e, ground = [255, 255, 255];
  for (; below; below = below.parentElement) {
    const found = parse(getComputedStyle(below).backgroundColor);
    if (found.length === 3 || found[3] > 0) { ground = found; break; }
  }
  const ink = parse(e.closest('svg') ? style.fill : style.color);
  const [high, low] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
  return [(high + 0.05) / (low + 0.05), e.textContent.trim().slice(0, 40)];
});
"""
# The widths of the page's content and of the window, and the elements that stand out of it, apart from those in an
# element that scrolls. On a phone, innerWidth grows with what is too wide; the root's clientWidth does not.
TOO_WIDE = """
const width = document.documentElement.clientWidth;
const scrolls = e => e && (getComputedStyle(e).overflowX === 'auto' || scrolls(e.parentElement));
return [document.documentElement.scrollWidth, width, [...document.querySelectorAll('body *')].filter(
  e => e.getClientRects().length && e.getBoundingClientRect().right > width + 0.5 && !scrolls(e.parentElement)
).map(e => e.outerHTML.slice(0, 200))];
"""


@contextmanager
def open_browser(width: int, height: int, *, phone: bool = False) -> Iterator[webdriver.Chrome]:
    """Chromium with a window of this size, its network cut off; skips the test where there is none, except in CI."""
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if not all(programs):
        absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        absent("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    # Containers have no user namespaces for the sandbox and little /dev/shm; only this test's own page is opened.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    metrics: dict[str, Any] = {"width": width, "height": height, "pixelRatio": 2 if phone else 1, "mobile": phone}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        driver.set_page_load_timeout(_TIMEOUT_S)
        driver.set_network_conditions(offline=True, latency=0, throughput=0)
        yield driver
    finally:
        driver.quit()
