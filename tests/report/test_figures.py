"""Pictures: all that apply are drawn, the others say why not, and what is drawn is what was measured."""

import io
import json

import matplotlib.pyplot
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vitlab.errors import UserError
from vitlab.inspection import attention_distance, attention_maps, attention_rollout, embedding_filters
from vitlab.models.build import build
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig
from vitlab.report import attention, canvas, embeddings, predictions, steps
from vitlab.report.figures import draw_inspection

PLAIN = ViTConfig(4, 32, 3, 32, 4, image_size=(12, 20), num_classes=3)
ATTENTION = {"Attention rollout", "Attention by layer and head", "Attention distance"}
TITLES = [
    "Predictions", "From image to tokens", "Attention rollout", "Attention by layer and head", "Attention distance",
    "Position similarity", "Embedding filters",
]  # fmt: skip


def subject(config, batch=2):
    torch.manual_seed(0)
    model = build(config)
    pictures = np.random.default_rng(0).integers(0, 256, (batch, *config.image_hw, 3), dtype=np.uint8)
    return model, pictures, torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def drawn(config, out, names=("one", "two"), **more):
    model, pictures, images = subject(config, len(names))
    return draw_inspection(model, pictures, images, list(names), out, **more)


def test_everything_is_drawn_of_a_plain_model(tmp_path):
    entries = drawn(PLAIN, tmp_path / "new" / "figures")
    assert [entry.title for entry in entries] == TITLES
    for entry in entries:
        assert not entry.skipped
        assert len(entry.alt) > 20
        assert "Look for" in entry.caption, "a caption says what to look for"
        with Image.open(tmp_path / "new" / "figures" / entry.file) as picture:
            assert picture.width == canvas.WIDTH * canvas.DPI
    stored = json.loads((tmp_path / "new" / "figures" / "figures.json").read_text())
    assert [set(entry) for entry in stored] == [{"title", "file", "caption", "alt"}] * 7
    assert [entry["file"] for entry in stored] == [entry.file for entry in entries]


@pytest.mark.parametrize(
    ("config", "skipped"),
    [
        (
            ViTConfig(4, 32, 2, 32, 4, image_size=12, num_classes=3, head="gap", position="none"),
            {"Position similarity"},
        ),
        (ViTConfig(4, 32, 2, 32, 4, image_size=12, num_classes=0, position="sincos2d"), {"Predictions"}),
        (
            ViTConfig(1, 32, 2, 32, 4, image_size=32, num_classes=3, resnet=ResNetStem((1,), 0.5)),
            {"Embedding filters"},
        ),
        (
            ViTConfig(4, 32, 2, 32, 4, image_size=12, num_classes=3, head="gap", axial=True),
            ATTENTION,
        ),
        (ResNetConfig((1,), 0.5, image_size=32, num_classes=3), set(TITLES) - {"Predictions"}),
    ],
)
def test_what_does_not_apply_is_skipped_with_a_reason(tmp_path, config, skipped):
    entries = drawn(config, tmp_path)
    assert {entry.title for entry in entries} == set(TITLES)
    assert {entry.title for entry in entries if entry.skipped} == skipped
    for entry in entries:
        assert bool(entry.skipped) != (tmp_path / (entry.file or "no picture")).exists()


def test_mistakes_are_not_taken_for_things_that_do_not_apply(tmp_path):
    model, pictures, images = subject(PLAIN)
    with pytest.raises(UserError, match="12x20"):
        draw_inspection(model, pictures, images[..., :-4], ["a", "b"], tmp_path)
    with pytest.raises(UserError, match="2 class names for a model of 3 classes"):
        draw_inspection(model, pictures, images, ["a", "b"], tmp_path, classes=["x", "y"])
    with pytest.raises(UserError, match="2 pictures, 2 images, 1 names"):
        draw_inspection(model, pictures, images, ["a"], tmp_path)
    with pytest.raises(UserError, match="at least one"):
        draw_inspection(model, pictures[:0], images[:0], [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_model_gives_the_same_bytes_and_pyplot_is_left_alone(tmp_path):
    first = drawn(PLAIN, tmp_path / "first")
    drawn(PLAIN, tmp_path / "second")
    assert len(list((tmp_path / "first").glob("*.svg"))) == len(first)
    for entry in first:
        name = entry.file.replace(".png", ".svg")
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
        assert (tmp_path / "first" / entry.file).read_bytes() == (tmp_path / "second" / entry.file).read_bytes()
    assert matplotlib.pyplot.get_fignums() == []


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    drawn(PLAIN, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_names_from_outside_are_drawn_literally(tmp_path):
    """No formula, no line break, no letter without a shape and no length breaks a picture."""
    names = ["$\\frac{1}{$ and \x1b[31m\n\t" + "long " * 60, "猫 \U0001f408 \u202e"]
    drawn(PLAIN, tmp_path, names=names, classes=["$x_1$", "<script>", "$\\bad{"])
    drawn(PLAIN, tmp_path, names=names, labels=[0, 2], classes=["$x_1$", "b" * 500, "$\\bad{"])


def test_one_line_is_short_and_visible():
    assert canvas.one_line("a\nb\x00c\u202ed\u2028e", 40) == "a b c d e"
    assert canvas.one_line("abcdef", 6) == "abcdef"
    assert canvas.one_line("abcdefg", 6) == "abcde…"


def test_more_images_than_fit_and_tensors_are_taken(tmp_path):
    model, pictures, images = subject(PLAIN, batch=9)
    names = [str(index) for index in range(9)]
    entries = draw_inspection(model, torch.from_numpy(pictures), images, names, tmp_path, labels=torch.arange(9) % 3)
    by_title = {entry.title: entry for entry in entries}
    assert "9 images" in by_title["Attention distance"].caption
    assert "Of 9 images" in by_title["Best and worst predictions"].caption
    assert f"{predictions.SAMPLES} images" in entries[0].alt


def test_the_distances_are_the_dots():
    model, _, images = subject(PLAIN)
    drawing = attention.draw_distance(model, images)
    dots = drawing.figure.axes[0].collections[0].get_offsets().data
    expected = attention_distance(model, images).numpy()
    np.testing.assert_allclose(dots[:, 1].reshape(expected.shape), expected)
    assert set(dots[:, 0]) == {1, 2, 3}


def test_evenly_spread_attention_lies_on_the_dashed_line():
    model, _, images = subject(PLAIN)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
    axes = attention.draw_distance(model, images).figure.axes[0]
    (level,) = set(axes.lines[0].get_ydata())
    np.testing.assert_allclose(axes.collections[0].get_offsets().data[:, 1], level, rtol=1e-5)


def test_large_grids_show_every_some_positions():
    model, *_ = subject(ViTConfig(1, 8, 1, 8, 2, image_size=(40, 3), num_classes=2))
    drawing = embeddings.draw_positions(model)
    rows, columns = embeddings.MOST_TILES, 3
    tiled = drawing.figure.axes[0].images[0].get_array()
    assert tiled.shape == (rows * 41 - 1, columns * 4 - 1)
    assert tiled.mask.sum() == tiled.size - rows * columns * 40 * 3


def test_the_true_class_is_blue_and_counted():
    model, pictures, images = subject(PLAIN)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([9.0, 0, 0]))
    drawing = predictions.draw_predictions(model, pictures, images, ["a", "b"], [0, 2], ["shoe", "bag", "hat"])
    assert "1 of these 2 are classified correctly" in drawing.caption
    assert "correctly" not in predictions.draw_predictions(model, pictures, images, ["a", "b"]).caption
    blues = []
    for axes in drawing.figure.axes:
        if axes.patches:
            bars = axes.patches[3:]  # the first three are the background
            blues.append([bar.get_facecolor()[2] > 0.6 and bar.get_facecolor()[0] < 0.1 for bar in bars])
            np.testing.assert_allclose(bars[0].get_width(), np.exp(9) / (np.exp(9) + 2), rtol=1e-6)
    assert blues[0] == [True, False, False]
    assert sum(blues[1]) == 1
    assert not blues[1][0]


def test_every_image_has_its_own_rollout():
    model, pictures, images = subject(PLAIN)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(6)
    shown = [axes.images[0].get_array() for axes in attention.draw_rollout(model, pictures, images, "ab").figure.axes]
    rollout = attention_rollout(model, images)
    assert len(shown) == 2 * 3
    for row in range(2):
        mask = F.interpolate(rollout[row][None, None], (12, 20), mode="bilinear")[0, 0]
        np.testing.assert_array_equal(shown[3 * row], pictures[row] / 255)
        expected = pictures[row] / 255 * (mask / mask.max()).numpy()[..., None]
        np.testing.assert_allclose(shown[3 * row + 2], expected, atol=1e-6)


def test_rollout_tiles_are_the_image_a_heat_map_and_their_product():
    image = np.full((2, 2, 3), 255, np.uint8)
    mask = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
    plain, heat, dimmed = attention.rollout_tiles(image, mask)
    assert (plain == 1).all()
    np.testing.assert_allclose(dimmed[..., 0], mask / 0.4)
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert heat[0, 0].sum() < heat[0, 1].sum() < heat[1, 0].sum() < heat[1, 1].sum()
    attention.rollout_tiles(image, np.zeros((2, 2), np.float32))  # nothing is divided by zero


def test_pictures_have_a_panel_of_their_own():
    figure = canvas.new_figure(1.0)
    with Image.open(io.BytesIO(canvas.png(figure))) as picture:
        assert picture.convert("RGB").getpixel((5, 5)) == tuple(bytes.fromhex(canvas.PANEL[1:]))


def test_the_numbers_stand_beside_the_pictures(tmp_path):
    model, pictures, images = subject(PLAIN)
    draw_inspection(model, pictures, images, ["a", "b"], tmp_path, labels=[0, 2])
    arrays = np.load(tmp_path / "numbers.npz", allow_pickle=False)
    np.testing.assert_array_equal(arrays["attention_distance"], attention_distance(model, images))
    np.testing.assert_array_equal(arrays["attention_rollout"], attention_rollout(model, images))
    np.testing.assert_array_equal(arrays["embedding_filters"], embedding_filters(model, 28))
    stored = json.loads((tmp_path / "numbers.json").read_text())
    assert stored["shapes"] == {name: list(array.shape) for name, array in arrays.items()}
    np.testing.assert_allclose(stored["arrays"]["attention_distance"], arrays["attention_distance"])
    assert (tmp_path / "attention-distance.svg").read_text().count("<svg") == 1


def test_single_heads_are_those_of_the_class_token():
    model, pictures, images = subject(PLAIN)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(6)
    drawing = attention.draw_heads(model, pictures[0], images[:1])
    shown = drawing.numbers["attention_by_layer_and_head"]
    for layer, maps in attention_maps(model, images[:1]):
        np.testing.assert_allclose(shown[layer], maps[0, :, 0, 1:].reshape(4, 3, 5), rtol=1e-5)
    assert len(drawing.figure.axes) == 1 + 3 * 4


def test_heads_without_a_class_token_are_means_and_many_are_spread():
    config = ViTConfig(4, 32, 9, 32, 8, image_size=8, num_classes=3, head="gap")
    model, pictures, images = subject(config)
    drawing = attention.draw_heads(model, pictures[0], images[:1])
    assert drawing.numbers["attention_layers"].tolist() == [0, 2, 3, 5, 6, 8]
    maps = dict(attention_maps(model, images[:1]))
    np.testing.assert_allclose(
        drawing.numbers["attention_by_layer_and_head"][-1], maps[8][0].mean(1).reshape(8, 2, 2), rtol=1e-5
    )
    assert "all patches on average" in drawing.caption


def test_the_steps_show_the_patches_at_their_places():
    model, pictures, _ = subject(PLAIN)
    drawing = steps.draw_steps(model, pictures[0])
    whole, apart, *sequence = [axes.images[0].get_array() for axes in drawing.figure.axes]
    np.testing.assert_array_equal(whole, pictures[0])
    assert apart.shape == (3 * 4 + 2, 5 * 4 + 4, 4)
    np.testing.assert_allclose(apart[5:9, 10:14, :3], pictures[0][4:8, 8:12] / 255)
    assert (apart[4, :, 3] == 0).all()
    np.testing.assert_array_equal(sequence[6], pictures[0][4:8, 4:8])
    texts = [text.get_text() for text in drawing.figure.texts]
    assert "12 × 20 × 3" in texts
    assert "16 × 32" in texts


def test_extremes_are_ordered_by_the_probability_of_the_truth():
    model, pictures, images = subject(PLAIN, batch=6)
    with torch.no_grad():
        model.head.weight.normal_()
    labels = [0, 1, 2, 0, 1, 2]
    drawing = predictions.draw_best_and_worst(model, pictures, images, labels, ["shoe", "bag", "hat"])
    with torch.no_grad():
        own = model.eval()(images).double().softmax(-1).numpy()[range(6), labels]
    np.testing.assert_allclose(drawing.numbers["true_class_probability"], own, rtol=1e-5)
    shown = [axes.images[0].get_array() for axes in drawing.figure.axes]
    order = own.argsort()
    for place, index in enumerate([*order[::-1][:3], *order[:3]]):
        np.testing.assert_array_equal(shown[place], pictures[index])
    with pytest.raises(UserError, match="labels 0 to 3 for 3 classes"):
        predictions.draw_best_and_worst(model, pictures, images, [0, 1, 2, 3, 0, 0])
