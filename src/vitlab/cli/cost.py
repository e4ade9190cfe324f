"""`vitlab cost MODEL|RECIPE`: parameters, FLOPs, memory, exaFLOPs, time and price, by arithmetic."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from vitlab.cli import options
from vitlab.cli.output import Cell, ResultTable, show
from vitlab.errors import UserError
from vitlab.recipes import cost, hardware, library, memory, zoo
from vitlab.recipes.configs import ModelConfig, ViTConfig
from vitlab.recipes.hardware import Hardware, device_hours
from vitlab.recipes.schema import Recipe

app = options.new_app()
JFT_IMAGES = 303_000_000
H100_PRECISION = "bfloat16"


@dataclass(frozen=True)
class _Run:
    """What is asked about.

    Attributes:
        name: of the model or the recipe.
        epochs: of training.
        images: an epoch.
        batch: images of one update at once.
        recipe: where one was named.
    """

    name: str
    config: ModelConfig
    epochs: float
    images: int
    batch: int
    recipe: Recipe | None = None

    @property
    def exaflops(self) -> float:
        return cost.exaflops(self.config, self.epochs, self.images)


@app.command("cost")
def cost_of(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL|RECIPE", help="A model's name, a recipe's name, or its TOML file.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the zoo, as a table.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model that a recipe trains.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Pixels, instead of the model's.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Training images; JFT has 303 million.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images of one update at once.")] = None,
    precision: Annotated[
        Literal["bfloat16", "float32"], typer.Option("--precision", help="Of matrix products.")
    ] = "bfloat16",
    device: Annotated[str, typer.Option("--hardware", help="A device, such as H100, A100 or TPUv3-core.")] = "H100",
    device_memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="The device's, if another, such as 12GB.")
    ] = None,
    utilisation: Annotated[float, typer.Option("--utilisation", help="Share of the device's peak.")] = 0.4,
    price: Annotated[float | None, typer.Option("--price", min=0.0, help="Of an hour of the device.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the paper's Figure 5: .png or .svg.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """What MODEL or RECIPE costs: nothing is run. Without --epochs and --images, 7 epochs of JFT, as in Table 6."""
    if every == (name is not None):
        raise UserError("cost: give a MODEL or a RECIPE, or --all for every model")
    if epochs is not None and not 0 < epochs < 1e9:
        raise UserError(f"--epochs {epochs}: give a number above 0")
    found = hardware.find(device)
    if device_memory is not None:
        found = replace(found, memory=memory.bytes_of(device_memory))
    if plot is not None:
        _draw(plot)
    if every:
        table = _zoo_table(epochs or 7, images or JFT_IMAGES, found, precision, utilisation)
    else:
        assert name is not None
        run = _run_of(name, model, image_size, epochs, images, batch)
        table = _table(run, found, precision, utilisation, price)
    show(table, as_json=as_json)


def _draw(path: Path) -> None:
    from vitlab.report.scaling import figure_5, save_figure

    save_figure(figure_5(), path)


def _run_of(
    name: str, model: str | None, image_size: int | None, epochs: float | None, images: int | None, batch: int | None
) -> _Run:
    changed: dict[str, object] = {} if image_size is None else {"image_size": image_size}
    if name in library.names() or name.endswith(".toml"):
        recipe = library.find(name)
        if recipe.init_from is not None and model is None:
            raise UserError(f"{name}: it starts from weights, so its model is not known; add --model NAME")
        size = {} if recipe.model.image_size is None else {"image_size": recipe.model.image_size}
        config = zoo.configure(model or recipe.model.name, {**recipe.model.options, **size, **changed})
        count = images or _images(recipe)
        passes = epochs or recipe.epochs or (recipe.steps or 0) * recipe.batch_size / count
        return _Run(name, config, passes, count, batch or recipe.batch_size, recipe)
    return _Run(name, zoo.configure(name, changed), epochs or 7, images or JFT_IMAGES, batch or 1)


def _images(recipe: Recipe) -> int:
    """Training images, where the recipe counts epochs; steps need none, so that any number does."""
    if recipe.epochs is None:
        return recipe.batch_size
    entry = library.entry(recipe.name)
    if entry is not None and entry.images is not None:
        return entry.images
    from vitlab.data.catalog import open_source

    if not recipe.data.source:
        raise UserError(f"{recipe.name}: it names no images; add --images NUMBER")
    try:
        return len(open_source(recipe.data.source, "train"))
    except UserError as error:
        raise UserError(f"{recipe.name}: its images cannot be counted ({error}); add --images NUMBER") from None


def _table(
    run: _Run, device: Hardware, precision: memory.Precision, utilisation: float, price: float | None
) -> ResultTable:
    config, recipe = run.config, run.recipe
    optimizer: memory.Optimizer = recipe.optimizer.kind if recipe else "adamw"
    averaging, recompute = (bool(recipe.averaging), recipe.scale.recompute) if recipe else (False, False)
    needed = memory.training_memory(
        config, run.batch, precision=precision, optimizer=optimizer, averaging=averaging, recompute=recompute
    )
    largest = memory.largest_batch(
        config, device.memory, precision=precision, optimizer=optimizer, averaging=averaging, recompute=recompute
    )
    hours = device_hours(run.exaflops, device.peak(precision), utilisation)
    h100 = device_hours(run.exaflops, hardware.find("H100").peak(H100_PRECISION), utilisation)
    days = cost.tpu_v3_core_days(run.exaflops, utilisation)
    forward = cost.flops(config)
    held = needed.weights + needed.gradients + needed.moments + needed.average
    rows: list[list[Cell]] = [
        ["parameters", f"{cost.parameters(config) / 1e6:,.2f} M"],
        ["image size", " x ".join(map(str, config.image_hw))],
        ["FLOPs of an image, forward", f"{forward / 1e9:,.2f} G"],
        ["FLOPs of an image, training", f"{cost.FORWARD_AND_BACKWARD * forward / 1e9:,.2f} G"],
        [f"weights, gradients, optimizer ({optimizer})", _bytes(held)],
        [f"activations of {run.batch:,} images, {precision}", _bytes(needed.activations)],
        [f"training memory at its peak, {run.batch:,} images", _bytes(needed.peak)],
        [f"largest training batch on {device.name} ({device.memory / 1e9:.0f} GB)", f"{largest:,}"],
        [f"training: {run.epochs:g} epochs of {run.images:,} images", f"{run.exaflops:,.4g} exaFLOPs"],
        ["TPUv3-core-days", f"{days:,.4g}"],
        ["H100-hours", f"{h100:,.4g}"],
    ]
    if isinstance(config, ViTConfig):
        rows.insert(2, ["tokens", config.tokens])
    if (device.name, precision) != ("H100", H100_PRECISION):
        rows.append([f"{device.name}-hours, {precision}", f"{hours:,.4g}"])
    if price is not None:
        rows.append(["price", f"{hours * price:,.2f}"])
    return ResultTable(
        title=f"What {run.name} costs",
        columns=["", "by arithmetic"],
        rows=rows,
        notes=[
            f"Time: at {100 * utilisation:g} % of the peak. exaFLOPs: as in the paper's Table 6, products with padding "
            "left out. Memory: PyTorch's tensors; a device's own context comes on top."
        ],
        numbers={
            "parameters": cost.parameters(config), "flops": forward, "exaflops": run.exaflops, "epochs": run.epochs,
            "images": run.images, "batch": run.batch, "precision": precision, "training_memory": needed.peak,
            "activations": needed.activations, "largest_batch": largest, "hardware": device.name,
            "utilisation": utilisation, "tpu_v3_core_days": days, "h100_hours": h100, "device_hours": hours,
            **({"price": hours * price} if price is not None else {}),
        },
    )  # fmt: skip


def _zoo_table(
    epochs: float, images: int, device: Hardware, precision: memory.Precision, utilisation: float
) -> ResultTable:
    rows: list[list[Cell]] = []
    numbers: dict[str, dict[str, float]] = {}
    for name in zoo.names():
        config = zoo.get(name)
        exaflops = cost.exaflops(config, epochs, images)
        days = cost.tpu_v3_core_days(exaflops, utilisation)
        hours = device_hours(exaflops, device.peak(precision), utilisation)
        largest = memory.largest_batch(config, device.memory, precision=precision)
        numbers[name] = {
            "parameters": cost.parameters(config), "flops": cost.flops(config), "exaflops": exaflops,
            "tpu_v3_core_days": days, "device_hours": hours, "largest_batch": largest,
        }  # fmt: skip
        rows.append([
            name, f"{cost.parameters(config) / 1e6:,.1f} M", f"{cost.flops(config) / 1e9:,.1f} G", f"{exaflops:,.4g}",
            f"{days:,.3g}", f"{hours:,.4g}", f"{largest:,}",
        ])  # fmt: skip
    return ResultTable(
        title=f"What every model costs: {epochs:g} epochs of {images:,} images at 224 pixels",
        columns=[
            "model",
            "parameters",
            "FLOPs",
            "exaFLOPs",
            "TPUv3-core-days",
            f"{device.name}-hours",
            "largest batch",
        ],
        rows=rows,
        notes=[
            f"Time: at {100 * utilisation:g} % of the peak. Largest batch: of training on {device.name}, {precision}."
        ],
        numbers=numbers,
    )


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
