"""`vitlab bench inference`: throughput and largest batch sizes of models on this machine."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.evaluation import speed
from vitlab.evaluation.speed import Speed
from vitlab.report.plots import check_suffix, save_figure, speed_figure
from vitlab.results import Cell, ResultTable
from vitlab.runtime import choose, environment

app = options.new_app()
# The models of the paper's Figure 12.
MODELS = "BiT-R50x1,BiT-R50x2,BiT-R152x4,ViT-B/32,ViT-L/32,ViT-B/16,ViT-L/16,ViT-H/14"
SIZES = "64,128,224,384,512"
BATCHES = "1,2,4,8,16,32,64,128,256,512,1024,2048,4096"


@app.callback()
def bench() -> None:
    """Throughput and memory on this machine."""


@app.command()
def inference(
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = MODELS,
    sizes: Annotated[str, typer.Option(help="Image sizes in pixels; a model skips those it does not support.")] = SIZES,
    batches: Annotated[str, typer.Option(help="Batch sizes; larger ones are skipped once memory runs out.")] = BATCHES,
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions of every measurement.")] = speed.REPETITIONS,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result to a .png or .svg file.")] = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Measure images per second and the largest batch size by model and image size (the paper's Figure 12)."""
    if plot is not None:
        check_suffix(plot)
    runtime = choose(device)
    names = [name.strip() for name in models.split(",")]
    tasks = speed.check_sizes(names, options.whole_numbers("--sizes", sizes, "64,224"))
    counts = options.whole_numbers("--batches", batches, "64,224")
    available = speed.device_memory(runtime)
    measured = [
        speed.sweep(
            name, size, counts, runtime, device_bytes=available, repetitions=repetitions,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
        for name, size in tasks
    ]  # fmt: skip
    about = environment(runtime)
    if plot is not None:
        save_figure(speed_figure(measured, str(about["device_name"])), plot)
    show(_table(measured, about), as_json=as_json)


def _table(measured: list[Speed], about: dict[str, str | int]) -> ResultTable:
    rows: list[list[Cell]] = []
    for one in measured:
        largest = f"{one.largest_batch:,}" if one.smallest_refused else f"{one.largest_batch:,} or more"
        peak = f"{one.peak:,.1f}" if one.images_per_second else None
        predicted = None if one.predicted_largest is None else f"{one.predicted_largest:,}"
        rows.append([one.model, one.image_size, peak, one.best_batch or None, largest, predicted])
    return ResultTable(
        title=f"Inference throughput on {about['device_name']}, {about['compute']}",
        columns=["model", "image size", "peak images/s", "at batch size", "largest batch size", "predicted largest"],
        rows=rows,
        notes=["Random images that are already on the device; the median of the repetitions."],
        numbers={"environment": about, "measured": [asdict(one) for one in measured]},
    )
