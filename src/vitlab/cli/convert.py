"""`vitlab convert MODEL OUT --to FORMAT`: weights for another library, with a parity certificate."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.data import images, loader, resize
from vitlab.datasets.catalog import open_source
from vitlab.models.build import Model
from vitlab.results import ResultTable
from vitlab.weights.parity import certificate
from vitlab.weights.save import FORMATS

app = options.new_app()
COMPARED = 8


@app.command()
def convert(
    model: options.ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file or folder.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")],
    paths: Annotated[
        Path | None, typer.Option("--images", metavar="PATH", help="Photos to compare on; bundled ones by default.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Resample to this resolution.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write MODEL in another library's format, and compare the logits of what went in and what came out on photos."""
    loaded = weights.load_model(model, image_size=image_size)
    inputs_BCHW = _photos(loaded, paths)
    weights.save_model(loaded, out, format=to)
    found = certificate(loaded, out, to, inputs_BCHW)
    rows: list[list[str | int]] = [
        ["written", str(out)],
        ["run by", found.through],
        ["images", found.images],
        ["largest logit", f"{found.largest:.3g}"],
        ["largest difference", f"{found.difference:.1e}"],
        ["parity", "yes" if found.passed else "NO"],
    ]
    numbers = {"through": found.through, "difference": found.difference, "passed": found.passed}
    show(ResultTable(f"Parity certificate: {to}", ["", ""], rows, numbers=numbers), as_json=as_json)
    if not found.passed:
        print(f"vitlab: {out} does not give the logits of {model}; do not use it", file=sys.stderr)
        raise typer.Exit(1)


def _photos(model: Model, paths: Path | None) -> torch.Tensor:
    preprocessing = model.preprocessing
    if paths is None:
        source = open_source("fashion-mnist", "test")
        batch = next(iter(loader.evaluation_batches(source, preprocessing, batch_size=COMPARED)))
        return loader.normalise(batch.images_BHWC, preprocessing)
    found = images.image_files(paths)[:COMPARED]
    pictures_BHWC = np.stack([resize.prepare(images.read_image(path), preprocessing) for path in found])
    return loader.normalise(torch.from_numpy(pictures_BHWC), preprocessing)
