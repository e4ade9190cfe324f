"""`vitlab bench inference`: speed and largest batches of models on this machine."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.errors import UserError
from vitlab.evaluation import speed
from vitlab.evaluation.speed import Speed
from vitlab.report.scaling import save_figure
from vitlab.report.speeds import speed_figure
from vitlab.results import Cell, ResultTable
from vitlab.runtime import choose, environment

app = options.new_app()
# Those of Figure 12.
MODELS = "BiT-R50x1,BiT-R50x2,BiT-R152x4,ViT-B/32,ViT-L/32,ViT-B/16,ViT-L/16,ViT-H/14"
SIZES = "64,128,224,384,512"
BATCHES = "1,2,4,8,16,32,64,128,256,512,1024,2048,4096"


@app.callback()
def bench() -> None:
    """Speed and memory on this machine."""


@app.command()
def inference(
    models: Annotated[str, typer.Option("--models", help="Names, separated by commas.")] = MODELS,
    sizes: Annotated[
        str, typer.Option("--sizes", help="Image sizes in pixels; those that do not fit a model are left out.")
    ] = SIZES,
    batches: Annotated[
        str, typer.Option("--batches", help="Batch sizes; it stops where memory is not enough.")
    ] = BATCHES,
    repetitions: Annotated[int, typer.Option("--repetitions", min=1, help="Of every measurement.")] = speed.REPETITIONS,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .png or .svg.")] = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Images a second and the largest batch of models, image sizes and batch sizes (the paper's Figure 12)."""
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise UserError(f"--plot {plot}: write to a file that ends in .png or .svg")
    runtime = choose(device)
    names = [name.strip() for name in models.split(",")]
    tasks = speed.check_sizes(names, _numbers("--sizes", sizes))
    counts = _numbers("--batches", batches)
    available = speed.device_memory(runtime)
    measured = [
        speed.sweep(
            name, size, counts, runtime, device_bytes=available, repetitions=repetitions,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        for name, size in tasks
    ]  # fmt: skip
    about = environment(runtime)
    if plot is not None:
        save_figure(speed_figure(measured, str(about["device_name"])), plot)
    show(_table(measured, about), as_json=as_json)


def _numbers(option: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 7 and int(word) > 0 for word in words):
        raise UserError(f"{option} {text[:60]}: write whole numbers separated by commas, such as 64,224")
    return sorted({int(word) for word in words})


def _table(measured: list[Speed], about: dict[str, str | int]) -> ResultTable:
    rows: list[list[Cell]] = []
    for found in measured:
        largest = f"{found.largest_batch:,}" if found.smallest_refused else f"{found.largest_batch:,} or more"
        peak = f"{found.peak:,.1f}" if found.images_per_second else None
        predicted = None if found.predicted_largest is None else f"{found.predicted_largest:,}"
        rows.append([found.model, found.image_size, peak, found.best_batch or None, largest, predicted])
    return ResultTable(
        title=f"Inference on {about['device_name']}, {about['compute']}",
        columns=["model", "pixels", "images/s", "at batch", "largest batch", "predicted"],
        rows=rows,
        notes=["Random images that are on the device already; the median of the repetitions, smaller batches first."],
        numbers={"environment": about, "measured": [asdict(found) for found in measured]},
    )
