"""Screenshots of the page of real nodules, with the required attribution: screenshots.py SCAN POINTS OUTPUT.

SCAN is a scan of LIDC-IDRI (a DICOM folder) and POINTS has its nodules, as for `nodulemc predict`. OUTPUT gets
desktop.png, phone.png and ATTRIBUTION.txt. The script needs Chromium, its driver and the extras report and dev.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from nodulemc import cli

SIZES = {"desktop": (1280, 1500), "phone": (360, 800)}
ATTRIBUTION = """The pictures show CTs of LIDC-IDRI (Armato et al., Med Phys 2011; The Cancer Imaging Archive,
doi:10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0. Numbers and outlines are NoduleMC's.
"""


def main() -> None:
    """Predict, and take pictures of the page at a desktop's and a phone's width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("scan", "points", "output"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        if code := cli.main(["predict", str(args.scan), "--points", str(args.points), "--report", str(page)]):
            parser.exit(code)
        for name, (width, height) in SIZES.items():
            _take(page, args.output / f"{name}.png", width, height)
    (args.output / "ATTRIBUTION.txt").write_text(ATTRIBUTION, encoding="utf-8")


def _take(page: Path, picture: Path, width: int, height: int) -> None:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    metrics = {"width": width, "height": height, "pixelRatio": 2}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(page.as_uri())
        driver.save_screenshot(str(picture))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
