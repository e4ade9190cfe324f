"""A small server for tests, in a thread of this process, and plain requests to it."""

import contextlib
import http.client
import io
import json
import threading

import numpy as np
import torch
from PIL import Image

from vitlab.models.build import build
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.zoo import ViTConfig
from vitlab.runtime import choose
from vitlab.serving import server
from vitlab.serving.limits import Limits

CLASSES = ("<script>alert(1)</script>", "bag & hat", "shoe", "tree")
CONFIG = ViTConfig(8, 32, 3, 64, 4, image_size=(48, 64), num_classes=len(CLASSES))


def small_model(config=CONFIG, classes=CLASSES):
    """A model whose attention is far from even."""
    torch.manual_seed(0)
    model = build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.classes = classes
    model.preprocessing = Preprocessing(size=config.image_hw)
    return model.eval()


@contextlib.contextmanager
def serving(model, limits=None, **options):
    """The port of a server that runs in a thread."""
    limits = limits or Limits()
    app = server.make_served_app(
        model, choose("cpu"), name="small <b>model", host="127.0.0.1", limits=limits, **options
    )
    with server.listen("127.0.0.1", 0) as listener:
        running = server.make_server(app, limits)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()


def ask(port, path, body=None, method=None, **headers):
    """(status, headers, body) of a request; header names are written with underscores."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, given)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def predict(port, data, query=""):
    status, _, body = ask(port, f"/api/predict{query}", data, content_type="image/png")
    assert status == 200, body
    return json.loads(body)["predictions"]


def form(*fields, boundary="frontier"):
    """A multipart body of (name, file name, bytes), and its content type."""
    lines = b""
    for name, file, data in fields:
        lines += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'.encode()
        lines += b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
    return lines + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def encoded(image_HWC, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format=format)
    return buffer.getvalue()


def noise(seed=0, shape=(60, 70, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
