"""The JSON API: answers are the model's own, and maps are those of vitlab.inspection."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from serving.servers import CLASSES, ask, encoded, form, noise, predict, serving, small_model
from vitlab.data import loader, resize
from vitlab.inspection import attention_maps, attention_rollout, position_similarity, token_similarity
from vitlab.models.build import build
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.zoo import ResNetConfig, ViTConfig


def inputs(model, image_HWC):
    prepared = resize.prepare(image_HWC, model.preprocessing)
    return loader.normalise(torch.from_numpy(np.array(prepared))[None], model.preprocessing)


def maps(answer):
    status, headers, body = answer
    assert status == 200, body
    shape = [int(length) for length in headers["X-Shape"].split(",")]
    return np.frombuffer(body, "<f2").reshape(shape).astype(np.float32)


def test_predictions_are_the_models(model, port):
    found = predict(port, encoded(noise()), "?top=4")
    with torch.no_grad():
        expected_K = model(inputs(model, noise())).softmax(-1)[0]
    order = expected_K.argsort(descending=True).tolist()
    assert [one["index"] for one in found] == order
    assert [one["label"] for one in found] == [CLASSES[k] for k in order]
    np.testing.assert_allclose([one["probability"] for one in found], expected_K[order], rtol=1e-5)
    assert predict(port, encoded(noise()), "?top=2") == found[:2]
    assert predict(port, encoded(noise()), "?top=9000") == found, "never more than there are"


def test_a_form_and_raw_bytes_are_the_same(port):
    data = encoded(noise(1))
    body, kind = form(("note", "n.txt", b"hello"), ("image", "../../etc/passwd", data))
    status, _, answer = ask(port, "/api/predict", body, content_type=kind)
    assert status == 200
    assert json.loads(answer)["predictions"] == predict(port, data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_format_of_the_decoder_is_taken(port, format):
    assert len(predict(port, encoded(noise(), format))) == len(CLASSES)


def test_attention_is_that_of_inspection(model, port):
    expected = dict(attention_maps(model, inputs(model, noise())))
    for layer in range(3):
        found = maps(ask(port, f"/api/attention?layer={layer}", encoded(noise()), content_type="image/png"))
        np.testing.assert_allclose(found, expected[layer][0], atol=1e-3)


def test_similarities_are_those_of_inspection(model, port):
    for depth in (0, 3):
        found = maps(ask(port, f"/api/similarity?depth={depth}", encoded(noise()), content_type="image/png"))
        np.testing.assert_allclose(found, token_similarity(model, inputs(model, noise()), depth)[0], atol=1e-3)
    found = maps(ask(port, "/api/positions"))
    np.testing.assert_allclose(found, position_similarity(model).reshape(48, 48), atol=1e-3)


def test_a_look_is_the_prepared_picture_and_its_rollout(model, port):
    status, _, body = ask(port, "/api/look", encoded(noise()), content_type="image/png")
    look = json.loads(body)
    assert status == 200
    picture = Image.open(io.BytesIO(base64.b64decode(look["picture"].removeprefix("data:image/png;base64,"))))
    np.testing.assert_array_equal(np.asarray(picture), resize.prepare(noise(), model.preprocessing))
    for name, residual in (("rollout", True), ("rollout_without_residual", False)):
        expected = attention_rollout(model, inputs(model, noise()), residual=residual)[0]
        np.testing.assert_allclose(look[name], expected, rtol=1e-5)


def test_the_model_and_its_health_are_told(port):
    facts = json.loads(ask(port, "/api/model")[2])
    assert facts == {
        "name": "small <b>model", "classes": 4, "height": 48, "width": 64, "rows": 6, "columns": 8, "layers": 3,
        "heads": 4, "class_token": True, "attention": "", "positions": "",
    }  # fmt: skip
    assert json.loads(ask(port, "/api/health")[2]) == {"status": "ok", "waiting": 0}


def test_a_model_without_attention_or_classes_is_served_for_the_rest():
    config = ResNetConfig((1,), 0.5, image_size=32, num_classes=3)
    model = build(config).eval()
    model.preprocessing = Preprocessing(size=(32, 32))
    with serving(model) as port:
        facts = json.loads(ask(port, "/api/model")[2])
        assert facts["attention"]
        assert facts["positions"]
        assert predict(port, encoded(noise()))[0]["label"].startswith("class ")
        assert json.loads(ask(port, "/api/look", encoded(noise()), content_type="image/png")[2])["rollout"] == []
        status, _, body = ask(port, "/api/attention?layer=0", encoded(noise()), content_type="image/png")
        assert status == 422
        assert b"ResNet" in body
        assert ask(port, "/api/positions")[0] == 422
    features = small_model(ViTConfig(8, 16, 1, 16, 2, image_size=16, num_classes=0), None)
    with serving(features) as port:
        status, _, body = ask(port, "/api/predict", encoded(noise()), content_type="image/png")
        assert status == 422
        assert b"no classification head" in body


@pytest.mark.long
def test_the_onnx_engine_gives_the_same(model, port):
    with serving(model, engine="onnx") as other:
        found, expected = (predict(each, encoded(noise())) for each in (other, port))
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    np.testing.assert_allclose(*[[one["probability"] for one in each] for each in (found, expected)], rtol=1e-4)


def test_the_description_names_every_route_and_nothing_is_loaded_from_elsewhere(port):
    paths = json.loads(ask(port, "/openapi.json")[2])["paths"]
    assert set(paths) == {
        "/api/predict", "/api/model", "/api/health", "/api/look", "/api/attention", "/api/similarity", "/api/positions"
    }  # fmt: skip
    for path in ("/", "/docs", "/page.js", "/heat.js", "/page.css"):
        status, headers, body = ask(port, path)
        assert status == 200
        text = body.decode().replace("http://127.0.0.1:8000", "").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
    docs = ask(port, "/docs")[2].decode()
    assert "<b>model" not in docs
    assert "small &lt;b&gt;model" in docs
    assert all(path in docs for path in paths)
