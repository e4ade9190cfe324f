"""A real browser without a window, and what its pages are asked."""

import tempfile
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

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


def headless():
    """Yields Debian's Chromium, and ends it."""
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


def sized(browser, width, scheme):
    """Show pages at that width, light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def contrast(one, two):
    lights = sorted((luminance(colour) for colour in (one, two)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def luminance(colour):
    channels = [int(number) / 255 for number in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
