"""Writes tutorial.ipynb: runs the cells below in order, in this process, and keeps what they print and draw.

Usage: python docs/make_tutorial.py      about a minute on two cores
"""

import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

NOTEBOOK = Path(__file__).parent / "tutorial.ipynb"
MOST_COLOURS = 128

TEXT, CODE = "markdown", "code"
CELLS: list[tuple[str, str]] = [
    (
        TEXT,
        """# An image is worth 16x16 words, section by section

This notebook follows [the paper](https://arxiv.org/abs/2010.11929) with vitlab, on real pictures: a photo, the
bundled Fashion-MNIST sample, and handwritten digits. It runs in about a minute on two cores. Besides vitlab it needs
scikit-image, for the photo.""",
    ),
    (
        CODE,
        """import io

import numpy as np
import skimage.data
import torch
from PIL import Image

import vitlab
from vitlab.data import loader, resize
from vitlab.datasets.catalog import open_source
from vitlab.evaluation import fewshot
from vitlab.recipes import cost, zoo
from vitlab.report import attention, canvas, embeddings, predictions, steps
from vitlab.runtime import choose

torch.manual_seed(0)


def show(drawing):
    print(drawing.caption)
    return Image.open(io.BytesIO(canvas.png(drawing.figure)))""",
    ),
    (
        TEXT,
        """## 3.1 From an image to tokens (Figure 1)

A ViT cuts an image into patches of 16 x 16 pixels, and reads them as a sentence.""",
    ),
    (
        CODE,
        """model = vitlab.create_model("ViT-Ti/16").eval()
photo = resize.prepare(skimage.data.astronaut(), model.preprocessing)
show(steps.draw_steps(model, photo))""",
    ),
    (
        TEXT,
        """**Eq. 1** defines the tokens: each patch, flattened, times a matrix E; a class token in front; and a vector
added for the position. The same by hand:""",
    ),
    (
        CODE,
        """image_1CHW = loader.normalise(torch.from_numpy(photo)[None], model.preprocessing)
with torch.no_grad():
    E = model.patch_embed.proj.weight.flatten(1)  # 192 filters of 3 * 16 * 16 numbers
    patches = image_1CHW.unfold(2, 16, 16).unfold(3, 16, 16)  # colour, row, column, height, width
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = patches @ E.T + model.patch_embed.proj.bias
    tokens = torch.cat((model.cls_token, tokens), dim=1) + model.pos_embed
    by_hand, by_vitlab = tokens, model.embed(image_1CHW)
print(by_hand.shape, "largest difference", float((by_hand - by_vitlab).abs().max()))""",
    ),
    (
        TEXT,
        """**Eq. 2 and 3**: every layer is attention and an MLP, each after a norm and with a residual. Training
uses fused attention, which never forms the matrix of attention weights. `attention_maps` computes it, layer by
layer. Every row is a distribution over tokens:""",
    ),
    (
        CODE,
        """for layer, maps in vitlab.inspection.attention_maps(model, image_1CHW, layers=[0, 11]):
    print(f"layer {layer}: {tuple(maps.shape)}, rows sum to {float(maps.sum(-1).mean()):.4f}")""",
    ),
    (
        TEXT,
        """## 3.2 Higher resolution

To a ViT a larger image is a longer sentence. Its position embeddings are resampled; everything else stays.""",
    ),
    (
        CODE,
        """import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    vitlab.save_model(model, Path(folder) / "model")
    larger = vitlab.load_model(Path(folder) / "model", image_size=384)
print("positions:", tuple(model.pos_embed.shape), "->", tuple(larger.pos_embed.shape))""",
    ),
    (TEXT, """## 4.1 The models (Table 1)"""),
    (
        CODE,
        """for name in ("ViT-B/16", "ViT-L/16", "ViT-H/14"):
    config = zoo.get(name)
    print(f"{name}: {config.layers} layers of width {config.hidden}, {config.heads} heads, "
          f"{cost.parameters(config) / 1e6:.0f} M parameters, {cost.flops(config) / 1e9:.0f} GFLOPs per image")""",
    ),
    (
        TEXT,
        """## 4.1 Training

The paper trains on up to 303 million images. Here are 2,400 of clothes, and a model of a suitable size.
`ViTClassifier` is vitlab's scikit-learn interface; like every other way to train, it calls `vitlab.run`.""",
    ),
    (
        CODE,
        """def arrays(source, count):
    batch = next(iter(loader.evaluation_batches(source, small.preprocessing, batch_size=count)))
    return batch.images_BHWC.numpy(), batch.labels_B.numpy()


options = dict(image_size=28, hidden=64, layers=3, heads=4, mlp=128)
small = vitlab.create_model("ViT-Ti/7", num_classes=10, **options)
train, test = open_source("fashion-mnist", "train"), open_source("fashion-mnist", "test")
images, labels = arrays(train, 2400)
test_images, test_labels = arrays(test, 500)
classifier = vitlab.ViTClassifier(
    "ViT-Ti/7", options=options, epochs=10, batch_size=48, learning_rate=2e-3, device="cpu"
)
classifier.fit(images, labels)
small = classifier.model_
print(f"top-1 accuracy on test images: {100 * classifier.score(test_images, test_labels):.1f} %  (chance: 10 %)")""",
    ),
    (TEXT, """Its most confident correct predictions, and its worst errors:"""),
    (
        CODE,
        """inputs = loader.normalise(torch.from_numpy(test_images), small.preprocessing)
show(predictions.draw_best_and_worst(small, test_images, inputs, test_labels.tolist(), test.classes))""",
    ),
    (
        TEXT,
        """## 4.1 and 4.3 Few-shot: frozen features, a linear solve

The paper's quick measure of a representation: regularised least squares on a few images per class, in closed form.
Here the features come from clothes, and the classes are handwritten digits.""",
    ),
    (
        CODE,
        """digits = open_source("digits", "train"), open_source("digits", "test")
features = [fewshot.features_of(small, source, small.preprocessing, choose("cpu")) for source in digits]
found = fewshot.evaluate(features[0], features[1], digits[0].classes, [1, 5, 25], seeds=3)
for shots, accuracies in found.accuracies.items():
    print(f"{shots}-shot: {100 * np.mean(accuracies):.1f} % of the digits are classified correctly")""",
    ),
    (TEXT, """## 4.4 The compute of a run (and Table 6)"""),
    (
        CODE,
        """for name, epochs in (("ViT-B/16", 7), ("ViT-L/16", 14), ("ViT-H/14", 14)):
    print(f"{name}, {epochs} epochs of JFT: {cost.exaflops(zoo.get(name), epochs, 303_000_000):,.0f} exaFLOPs")""",
    ),
    (TEXT, """## 4.5 Inspecting the model (Figure 7)

The attention distance of its heads:"""),
    (CODE, """show(attention.draw_distance(small, inputs[:128]))"""),
    (TEXT, """The similarity of its position embeddings:"""),
    (CODE, """show(embeddings.draw_positions(small))"""),
    (TEXT, """The attention of single heads in one image:"""),
    (CODE, """show(attention.draw_heads(small, test_images[0], inputs[:1]))"""),
    (
        TEXT,
        """And Figure 6, attention rollout: how much each patch contributes to the output, through all layers.""",
    ),
    (
        CODE,
        """names = [test.classes[label] for label in test_labels[:3]]
show(attention.draw_rollout(small, test_images[:3], inputs[:3], names))""",
    ),
    (
        TEXT,
        """`vitlab inspect` draws all of these for any model, `vitlab serve` shows them on an interactive page, and
[inspection.md](inspection.md) shows them for a model that was trained on many photos.""",
    ),
]  # fmt: skip


def main() -> None:
    """Run all cells and write the notebook."""
    names: dict[str, Any] = {"__name__": "__tutorial__"}
    cells = []
    for number, (kind, source) in enumerate(CELLS):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == CODE:
            count = sum(1 for cell in cells if cell["cell_type"] == CODE) + 1
            cell |= {"execution_count": count, "outputs": outputs_of(source, names, count)}
        cells.append(cell | {"source": source.splitlines(keepends=True)})
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def outputs_of(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run a cell among `names`; what it printed, and the value of a last line that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        outputs.append(
            {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown(value)}
        )
    return outputs


def shown(value: object) -> dict[str, str]:
    """A value as a notebook keeps it; pictures lose some colours and size."""
    if not isinstance(value, Image.Image):
        return {"text/plain": repr(value)}
    small = value.convert("RGB").resize((640, round(value.height * 640 / value.width)))
    buffer = io.BytesIO()
    small.quantize(MOST_COLOURS, Image.Quantize.MEDIANCUT).save(buffer, format="PNG", optimize=True)
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"text/plain": f"a picture of {small.width} x {small.height} pixels", "image/png": picture}


if __name__ == "__main__":
    main()
