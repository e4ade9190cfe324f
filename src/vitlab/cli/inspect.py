"""`vitlab inspect MODEL --images PATH --out DIR`: figures of what a model has learned."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.data import images, loader, resize
from vitlab.report.figures import draw_inspection
from vitlab.report.page import write_report
from vitlab.runtime import choose

app = options.new_app()
MOST_IMAGES = 128


@app.command("inspect")
def inspect_model(
    model: options.ModelArgument,
    paths: Annotated[Path, typer.Option("--images", metavar="PATH", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figures.")],
    device: options.DeviceOption = "auto",
) -> None:
    """Draw MODEL's embedding filters, position similarity, attention distance, and attention over images."""
    loaded, runtime = weights.load_model(model), choose(device)
    loaded.eval().to(runtime.device)
    files = images.image_files(paths)[:MOST_IMAGES]
    pictures_BHWC = np.stack([resize.prepare(images.read_image(path), loaded.preprocessing) for path in files])
    inputs_BCHW = loader.normalise(torch.from_numpy(pictures_BHWC), loaded.preprocessing, runtime.device)
    entries = draw_inspection(loaded, pictures_BHWC, inputs_BCHW, [path.stem for path in files], out)
    for entry in entries:
        print(out / entry.file if entry.file else f"{entry.title}: not drawn, {entry.skipped}")
    typer.echo(f"report: {write_report([out], out / 'report.html')}", err=True)
