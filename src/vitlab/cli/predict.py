"""`vitlab predict MODEL IMAGE...`: the most probable classes of images."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.data import images, loader, resize
from vitlab.evaluation.accuracy import evaluating
from vitlab.models.build import class_names, probabilities
from vitlab.results import ResultTable, percent
from vitlab.runtime import choose

app = options.new_app()


@app.command()
def predict(
    model: options.ModelArgument,
    paths: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 3,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Print the most probable classes of each IMAGE."""
    loaded, runtime = weights.load_model(model), choose(device)
    names = class_names(loaded)
    top = min(top, len(names))
    rows, numbers = [], {}
    with evaluating(loaded, runtime):
        for path in (file for given in paths for file in images.image_files(given)):
            image_HWC = resize.prepare(images.read_image(path), loaded.preprocessing)
            images_BHWC = torch.from_numpy(image_HWC)[None]
            images_BCHW = loader.normalise(images_BHWC, loaded.preprocessing, runtime.device)
            probabilities_K = probabilities(loaded(images_BCHW))[0]
            best = probabilities_K.argsort(descending=True, stable=True)[:top].tolist()
            rows.append([str(path), *(f"{names[k]} {percent(float(probabilities_K[k]))}" for k in best)])
            numbers[str(path)] = {names[k]: float(probabilities_K[k]) for k in best}
    columns = ["image", *(f"top-{place + 1} class" for place in range(top))]
    show(ResultTable("Predictions", columns, rows, numbers=numbers), as_json=as_json)
