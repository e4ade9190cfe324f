"""The page in a real browser: nothing sticks out, overlaps, fails to load or complains, on a desk or a phone."""

import base64

import pytest

from report.browsers import OVERLAPS, SCREENSHOTS, STICKING_OUT, contrast, headless, sized
from vitlab.report.page import write_report


@pytest.fixture(scope="module")
def browser():
    yield from headless()


@pytest.fixture(scope="module")
def page(journey, tmp_path_factory):
    return write_report([journey], tmp_path_factory.mktemp("out") / "report.html")


def opened(browser, page, width, scheme, name):
    """Show the page at that width, with every fold open, and keep a picture of it."""
    sized(browser, width, scheme)
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
    assert len(images) == 8
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


@pytest.mark.browser
def test_paper_shows_what_was_folded(browser, page):
    opened(browser, page, 1400, "light", "report")
    browser.execute_script("document.querySelectorAll('details').forEach(fold => fold.open = false)")
    fold = "return document.querySelector('details').getBoundingClientRect().height"
    folded = browser.execute_script(fold)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(fold) > 200 > folded
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1400
