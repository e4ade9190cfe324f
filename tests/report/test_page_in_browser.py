"""The page in a real browser: nothing sticks out, overlaps, fails to load or complains, on a desk or a phone."""

import base64
import tempfile
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from vitlab.report.page import write_report

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

# Pairs of neighbouring blocks, or of texts in a chart, that cover each other by more than a pixel.
OVERLAPS = """
const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
const isBlock = element => element instanceof SVGTextElement
    || (element instanceof HTMLElement && !getComputedStyle(element).display.startsWith('inline'));
const found = [];
for (const parent of document.querySelectorAll('body, body *')) {
  const children = [...parent.children].filter(child => isBlock(child) && child.getBoundingClientRect().width > 0);
  children.forEach((one, i) => children.slice(i + 1).forEach(two => {
    if (covers(one.getBoundingClientRect(), two.getBoundingClientRect()))
      found.push(one.outerHTML.slice(0, 80) + ' / ' + two.outerHTML.slice(0, 80));
  }));
}
return found;
"""
STICKING_OUT = """
const scrolls = element => element && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX)
                                      || scrolls(element.parentElement));
return [...document.querySelectorAll('body *')]
  .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
                     && !scrolls(element.parentElement))
  .map(element => element.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope="module")
def browser():
    for program in (BROWSER, DRIVER):
        if not program.exists():
            pytest.fail(f"{program} is missing: install Debian's packages chromium and chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for argument in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def page(journey, tmp_path_factory):
    return write_report([journey], tmp_path_factory.mktemp("out") / "report.html")


def opened(browser, page, width, scheme, name):
    """Show the page at that width, with every fold open, and keep a picture of it."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{name}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_and_is_whole(browser, page, width, scheme):
    opened(browser, page, width, scheme, "report")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(STICKING_OUT) == []
    assert browser.execute_script(OVERLAPS) == []
    assert browser.get_log("browser") == []
    images = browser.execute_script(
        "return [...document.images].map(image => [image.naturalWidth, image.width, image.alt.length])"
    )
    assert len(images) == 5
    assert all(natural > 0 and shown > 200 and alt > 0 for natural, shown, alt in images)


@pytest.mark.browser
def test_nothing_is_fetched(browser, page):
    opened(browser, page, 1400, "light", "report")
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    urls = [message.split('"url":"')[1].split('"')[0] for message in requests if '"url":"' in message]
    assert all(url.startswith(("data:", "file:")) for url in urls), urls
    assert any(url.endswith("report.html") for url in urls)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, page, scheme):
    """Contrast of text and of curves as WCAG 2 counts it: 4.5 for text, 3 for lines."""
    opened(browser, page, 1400, scheme, "report")
    for selector, on, least in (
        ("p", "body", 4.5), (".lead", "body", 4.5), ("a", "body", 4.5), (".note", "body", 4.5), ("th", "th", 4.5),
        (".tile dt", ".tile", 4.5), (".legend", ".chart", 4.5), (".line-0", ".chart", 3), (".line-1", ".chart", 3),
    ):  # fmt: skip
        colours = browser.execute_script(
            "const style = getComputedStyle(document.querySelector(arguments[0]));"
            "return [arguments[0].startsWith('.line') ? style.stroke : style.color,"
            "getComputedStyle(document.querySelector(arguments[1])).backgroundColor]",
            selector,
            on,
        )
        assert contrast(*colours) >= least, (selector, colours)


def contrast(one, two):
    lights = sorted((luminance(colour) for colour in (one, two)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def luminance(colour):
    channels = [int(number) / 255 for number in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.browser
def test_paper_shows_what_was_folded(browser, page):
    opened(browser, page, 1400, "light", "report")
    browser.execute_script("document.querySelectorAll('details').forEach(fold => fold.open = false)")
    fold = "return document.querySelector('details').getBoundingClientRect().height"
    folded = browser.execute_script(fold)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(fold) > 200 > folded
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1400
