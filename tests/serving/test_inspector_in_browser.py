"""The inspector page in a real browser, by mouse and by keyboard alone, on a desktop and a phone, light and dark."""

import base64
import json

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from report.browsers import OVERLAPS, SCREENSHOTS, STICKING_OUT, contrast, headless, sized
from serving.servers import CLASSES, serving, small_model
from vitlab.data import images, loader, resize
from vitlab.inspection import attention_maps

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def port(model):
    with serving(model) as port:
        yield port


@pytest.fixture(scope="module")
def browser():
    yield from headless()


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "cat <b>.png"
    Image.fromarray(skimage.data.chelsea()).save(path)
    return path


@pytest.fixture
def page(browser, port, photo):
    """The page with a photo on it, at 1400 pixels, light."""
    sized(browser, 1400, "light")
    opened(browser, port)
    upload(browser, photo)
    return browser


def opened(browser, port):
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(f"http://127.0.0.1:{port}/")
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#head-list input"))


def upload(browser, photo):
    browser.find_element(By.ID, "file").send_keys(str(photo))
    until(browser, lambda: said(browser))


def until(browser, condition):
    return WebDriverWait(browser, 30).until(lambda _: condition())


def said(browser):
    return browser.find_element(By.ID, "said").text


def shown(browser):
    """What the canvas shows."""
    return browser.execute_script("return document.getElementById('picture').toDataURL()")


def nothing_went_wrong(browser, port):
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for url in urls), urls
    return urls


def expected_sentence(model, photo, layer, head, query):
    """Where a query looks most, by vitlab.inspection."""
    picture = resize.prepare(images.read_image(photo), model.preprocessing)
    inputs = loader.normalise(torch.from_numpy(np.array(picture))[None], model.preprocessing)
    maps = dict(attention_maps(model, inputs, layers=[layer]))[layer][0].half().float()
    row = (maps.mean(0) if head is None else maps[head])[query]
    best = int(row[1:].argmax())
    return f"row {best // model.grid[1] + 1}, column {best % model.grid[1] + 1}"


def move_to(browser, row, column):
    """Put the pointer on the middle of a patch of the 6 x 8."""
    canvas = browser.find_element(By.ID, "picture")
    x, y = (column + 0.5) / 8 - 0.5, (row + 0.5) / 6 - 0.5
    ActionChains(browser).move_to_element_with_offset(
        canvas, round(x * canvas.size["width"]), round(y * canvas.size["height"])
    ).perform()


def test_the_top_class_is_read(page, port):
    classes = [item.text for item in page.find_elements(By.CSS_SELECTOR, "#classes li")]
    assert len(classes) == len(CLASSES)
    names, shares = zip(*(text.rsplit("\n", 1) for text in classes), strict=True)
    assert set(names) == set(CLASSES), "a name that looks like markup is shown as it is"
    numbers = [float(share.rstrip(" %")) for share in shares]
    assert numbers == sorted(numbers, reverse=True)
    assert abs(sum(numbers) - 100) < 1
    assert "small <b>model" in page.find_element(By.ID, "facts").text
    urls = nothing_went_wrong(page, port)
    assert f"http://127.0.0.1:{port}/api/predict?top=5" in urls


def test_hovering_a_patch_shows_what_it_attends_to(page, model, photo):
    before = shown(page)
    move_to(page, 1, 2)
    assert "The patch in row 2, column 3 attends most to" in said(page)
    assert expected_sentence(model, photo, 0, None, 1 + 8 + 2) in said(page)
    assert shown(page) != before
    move_to(page, 4, 6)
    assert "The patch in row 5, column 7" in said(page)
    page.find_element(By.ID, "picture").click()  # holds the middle one
    held = said(page)
    move_to(page, 0, 0)
    assert said(page) == held
    page.find_element(By.ID, "picture").click()
    move_to(page, 0, 0)
    assert "The patch in row 1, column 1" in said(page)


def test_layer_and_head_change_what_is_shown(page, model, photo):
    move_to(page, 2, 2)
    seen = {shown(page)}
    slider = page.find_element(By.ID, "layer")
    slider.send_keys(Keys.ARROW_RIGHT)
    until(page, lambda: "of layer 2" in said(page))
    assert page.find_element(By.ID, "layer-number").text == "2 of 3"
    seen.add(shown(page))
    radio = page.find_element(By.CSS_SELECTOR, "input[name=head][value='1']")
    ActionChains(page).move_to_element(radio).click().perform()
    until(page, lambda: "in head 2 of layer 2" in said(page))
    seen.add(shown(page))
    query = said(page).split("row ")[1]
    row, column = int(query.split(",")[0]), int(query.split("column ")[1].split()[0])
    expected = expected_sentence(model, photo, 1, 1, (row - 1) * 8 + column)
    assert f"attends most to {expected}" in said(page)
    page.find_element(By.ID, "class-token").click()
    until(page, lambda: "The class token attends most to" in said(page))
    assert expected_sentence(model, photo, 1, 1, 0) in said(page)
    seen.add(shown(page))
    assert len(seen) == 4


def test_the_other_views(page, port):
    seen = {shown(page)}
    for view, words in (
        ("rollout", "contributes most to"), ("similarity", "is most similar to"), ("positions", "is most similar to")
    ):  # fmt: skip
        radio = page.find_element(By.CSS_SELECTOR, f"input[value={view}]")
        ActionChains(page).move_to_element(radio).click().perform()
        until(page, lambda words=words: words in said(page))
        page.execute_async_script("requestAnimationFrame(() => arguments[0]())")
        seen.add(shown(page))
        assert page.find_element(By.ID, "heads").is_displayed() is False
        assert page.find_element(By.ID, "layer").is_displayed() == (view == "similarity")
    assert len(seen) == 4
    nothing_went_wrong(page, port)


def test_all_of_it_by_keyboard_alone(browser, port, photo):
    sized(browser, 1400, "light")
    opened(browser, port)
    keys = ActionChains(browser)
    focused = lambda: browser.switch_to.active_element  # noqa: E731
    keys.send_keys(Keys.TAB).perform()
    assert focused().text == "Skip to the picture"
    keys.send_keys(Keys.TAB).perform()
    assert focused().get_attribute("id") == "file"
    focused().send_keys(str(photo))  # what the browser's own dialogue would do
    until(browser, lambda: said(browser))
    keys.send_keys(Keys.TAB).perform()
    assert focused().get_attribute("id") == "picture"
    before = said(browser)
    keys.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP).perform()
    assert said(browser) != before
    keys.send_keys(Keys.HOME).perform()
    assert "column 1 attends" in said(browser)
    keys.send_keys(Keys.TAB).perform()
    assert focused().get_attribute("value") == "attention"
    keys.send_keys(Keys.TAB).perform()
    assert focused().get_attribute("id") == "layer"
    keys.send_keys(Keys.END).perform()
    until(browser, lambda: "of layer 3" in said(browser))
    keys.send_keys(Keys.TAB, Keys.SPACE).perform()
    until(browser, lambda: "The class token" in said(browser))
    keys.send_keys(Keys.TAB, Keys.ARROW_RIGHT).perform()
    until(browser, lambda: "in head 1" in said(browser))
    outline = browser.execute_script(
        "return getComputedStyle(document.activeElement.parentElement.querySelector('canvas')).outlineStyle"
    )
    assert outline == "solid", "the focus is seen"
    nothing_went_wrong(browser, port)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_it_fits_and_can_be_read(browser, port, photo, width, scheme):
    sized(browser, width, scheme)
    opened(browser, port)
    keep_picture(browser, f"inspector-empty-{width}-{scheme}", width)
    upload(browser, photo)
    keep_picture(browser, f"inspector-{width}-{scheme}", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(STICKING_OUT) == []
    assert browser.execute_script(OVERLAPS.replace("'body, body *'", "'body, main, .panel, .stage, figcaption'")) == []
    for selector in ("#facts", "h1", "#hint", ".classes .share", "#said", ".drop span", "a[href='/docs']"):
        colours = browser.execute_script(
            "const at = selector => getComputedStyle(document.querySelector(selector));"
            "return [at(arguments[0]).color, at(arguments[1]).backgroundColor]",
            selector,
            ".drop label" if selector.startswith(".drop") else "body",
        )
        assert contrast(*colours) >= 4.5, (selector, colours)
    nothing_went_wrong(browser, port)
    browser.get(f"http://127.0.0.1:{port}/docs")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    keep_picture(browser, f"api-{width}-{scheme}", width)
    nothing_went_wrong(browser, port)


def keep_picture(browser, name, width):
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def test_a_mistake_is_said_and_the_page_goes_on(page, photo, tmp_path):
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"this is no image")
    page.find_element(By.ID, "file").send_keys(str(wrong))
    trouble = until(page, lambda: page.find_element(By.ID, "trouble").text)
    assert "not a readable JPEG" in trouble
    page.find_element(By.ID, "file").send_keys(str(photo))
    until(page, lambda: not page.find_element(By.ID, "trouble").is_displayed())
    assert page.find_elements(By.CSS_SELECTOR, "#classes li")


def test_everything_has_a_name_for_those_who_do_not_see_it(page):
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = {"button", "link", "radio", "checkbox", "slider", "application", "img"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in controls
    ]
    assert {"radio", "slider", "checkbox", "application", "link"} <= {role for role, _ in named}
    assert all(name for _, name in named), named
    assert ("radio", "Head 1") in named
