"""`vitlab cost MODEL|RECIPE|RUN`: parameters, FLOPs, memory, exaFLOPs, time and price, by arithmetic."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from vitlab.cli import options
from vitlab.cli.costing import EPOCHS, Asked, Changes, asked_of, check_size, counted
from vitlab.cli.output import show
from vitlab.errors import UserError
from vitlab.recipes import cost, hardware, memory, zoo
from vitlab.recipes.configs import ModelConfig, ViTConfig
from vitlab.recipes.entries import JFT
from vitlab.recipes.hardware import Hardware, device_hours
from vitlab.results import Cell, ResultTable

app = options.new_app()
H100_PRECISION = "bfloat16"
MOST_EPOCHS, MOST_IMAGES, HIGHEST_PRICE, LEAST_UTILISATION = 1e9, 10**15, 1e9, 1e-6


@dataclass(frozen=True)
class _Device:
    """What is trained on, and how well it is used; `price` is an hour's."""

    hardware: Hardware
    precision: memory.Precision
    utilisation: float
    price: float | None

    def hours(self, exaflops: float) -> float:
        """How long it needs."""
        return device_hours(exaflops, self.hardware.peak(self.precision), self.utilisation)


@app.command("cost")
def cost_of(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL|RECIPE|RUN", help="A model, a recipe, its TOML file, or a run's folder."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the zoo, as a table.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model that a recipe trains.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Pixels, instead of the model's.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, max=MOST_IMAGES, help="Training images; JFT has 303 million."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, max=memory.MOST_IMAGES, help="Images of one update at once.")
    ] = None,
    precision: Annotated[
        Literal["bfloat16", "float32"], typer.Option("--precision", help="Of matrix products.")
    ] = "bfloat16",
    device: Annotated[str, typer.Option("--hardware", help="A device, such as H100, A100 or TPUv3-core.")] = "H100",
    device_memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="The device's, if another, such as 12GB.")
    ] = None,
    utilisation: Annotated[float, typer.Option("--utilisation", help="Share of the device's peak.")] = 0.4,
    price: Annotated[float | None, typer.Option("--price", help="Of an hour of the device.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the paper's Figure 5: .png or .svg.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """What a MODEL, a RECIPE or a RUN costs: nothing is run. A MODEL is trained for 7 epochs of JFT, as in Table 6."""
    if every == (name is not None):
        raise UserError("cost: give a MODEL, a RECIPE or a RUN, or --all for every model")
    _check_numbers(epochs, utilisation, price)
    found = hardware.find(device)
    if device_memory is not None:
        found = replace(found, memory=memory.bytes_of(device_memory))
    used, changes = _Device(found, precision, utilisation, price), Changes(model, image_size, epochs, images, batch)
    table = _zoo_table(changes, used) if name is None else _table(asked_of(name, changes), used)
    if plot is not None:
        _draw(plot)
    show(table, as_json=as_json)


def _check_numbers(epochs: float | None, utilisation: float, price: float | None) -> None:
    """Refuses what typer's own ranges let through: infinity, and what is not a number."""
    if epochs is not None and not 0 < epochs < MOST_EPOCHS:
        raise UserError(f"--epochs {epochs:g}: give a number above 0 and below {MOST_EPOCHS:,.0f}")
    if price is not None and not 0 <= price <= HIGHEST_PRICE:
        raise UserError(f"--price {price:g}: give a number from 0 to {HIGHEST_PRICE:,.0f}")
    if not LEAST_UTILISATION <= utilisation <= 1:
        raise UserError(f"--utilisation {utilisation:g}: give a share of the peak in (0, 1], such as 0.4")


def _draw(path: Path) -> None:
    from vitlab.report.scaling import figure_5, save_figure

    save_figure(figure_5(), path)


def _needs(asked: Asked, device: _Device) -> tuple[memory.Optimizer, memory.Memory, int]:
    """The optimizer, what training takes, and the largest batch that fits."""
    recipe = asked.recipe
    optimizer: memory.Optimizer = recipe.optimizer.kind if recipe else "adamw"
    averaging, recompute = (bool(recipe.averaging), recipe.scale.recompute) if recipe else (False, False)
    needed = memory.training_memory(
        asked.config, asked.at_once, precision=device.precision, optimizer=optimizer, averaging=averaging,
        recompute=recompute,
    )  # fmt: skip
    largest = memory.largest_batch(
        asked.config, device.hardware.memory, precision=device.precision, optimizer=optimizer, averaging=averaging,
        recompute=recompute,
    )  # fmt: skip
    return optimizer, needed, largest


def _table(asked: Asked, device: _Device) -> ResultTable:
    config, found = asked.config, device.hardware
    optimizer, needed, largest = _needs(asked, device)
    exaflops, hours = asked.exaflops, device.hours(asked.exaflops)
    h100 = device_hours(exaflops, hardware.find("H100").peak(H100_PRECISION), device.utilisation)
    days = cost.tpu_v3_core_days(exaflops, device.utilisation)
    forward, together = cost.flops(config), counted(asked.at_once, "image")
    held = needed.weights + needed.gradients + needed.moments + needed.average
    rows: list[list[Cell]] = [
        ["parameters", _scaled(cost.parameters(config), largest="M")],
        ["image size", " x ".join(map(str, config.image_hw))],
        ["FLOPs of an image, forward", _scaled(forward)],
        ["FLOPs of an image, training", _scaled(cost.FORWARD_AND_BACKWARD * forward)],
        [f"weights, gradients, optimizer ({optimizer})", _bytes(held)],
        [f"activations of {together}, {device.precision}", _bytes(needed.activations)],
        [f"training memory at its peak, {together}", _bytes(needed.peak)],
        [f"largest training batch on {found.name} ({found.memory / 1e9:.0f} GB)", f"{largest:,}"],
        [f"training: {asked.length}", f"{exaflops:,.4g} exaFLOPs"],
        ["TPUv3-core-days", f"{days:,.4g}"],
        ["H100-hours", f"{h100:,.4g}"],
    ]
    if isinstance(config, ViTConfig):
        rows.insert(2, ["tokens", config.tokens])
    if (found.name, device.precision) != ("H100", H100_PRECISION):
        rows.append([f"{found.name}-hours, {device.precision}", f"{hours:,.4g}"])
    if device.price is not None:
        rows.append(["price", f"{hours * device.price:,.2f}"])
    return ResultTable(
        title=f"What {asked.name} costs",
        columns=["", "by arithmetic"],
        rows=rows,
        notes=[
            f"Time: at {100 * device.utilisation:g} % of the peak. exaFLOPs: as in the paper's Table 6, products with "
            "padding left out. Memory: PyTorch's tensors; a device's own context comes on top.",
            *asked.notes,
        ],
        numbers={
            "parameters": cost.parameters(config), "classes": config.num_classes, "flops": forward,
            "exaflops": exaflops, "epochs": asked.epochs, "images": asked.images, "steps": asked.steps,
            "batch": asked.at_once, "precision": device.precision, "training_memory": needed.peak,
            "activations": needed.activations, "largest_batch": largest, "hardware": found.name,
            "utilisation": device.utilisation, "tpu_v3_core_days": days, "h100_hours": h100, "device_hours": hours,
            **({"price": hours * device.price} if device.price is not None else {}),
        },
    )  # fmt: skip


def _every_model(changes: Changes) -> dict[str, ModelConfig]:
    """The zoo at the image size that is asked for; what is of one model alone is refused."""
    for option, value in (("--model", changes.model), ("--batch", changes.batch)):
        if value is not None:
            raise UserError(f"cost --all: {option} is for one model or recipe; leave it out, or name one")
    size = {} if changes.image_size is None else {"image_size": changes.image_size}
    configs = {}
    for name in zoo.names():
        try:
            configs[name] = zoo.configure(name, size)
        except UserError as error:
            raise UserError(f"cost --all: {name}: {error}; multiples of 224 fit every model") from None
        check_size(name, configs[name])
    return configs


def _zoo_table(changes: Changes, device: _Device) -> ResultTable:
    epochs, images, found = changes.epochs or EPOCHS, changes.images or JFT, device.hardware
    rows: list[list[Cell]] = []
    numbers: dict[str, dict[str, float]] = {}
    for name, config in _every_model(changes).items():
        exaflops = cost.exaflops(config, epochs, images)
        days, hours = cost.tpu_v3_core_days(exaflops, device.utilisation), device.hours(exaflops)
        largest = memory.largest_batch(config, found.memory, precision=device.precision)
        numbers[name] = {
            "parameters": cost.parameters(config), "flops": cost.flops(config), "exaflops": exaflops,
            "tpu_v3_core_days": days, "device_hours": hours, "largest_batch": largest,
        }  # fmt: skip
        row: list[Cell] = [
            name, f"{cost.parameters(config) / 1e6:,.1f} M", f"{cost.flops(config) / 1e9:,.1f} G", f"{exaflops:,.4g}",
            f"{days:,.3g}", f"{hours:,.4g}", f"{largest:,}",
        ]  # fmt: skip
        if device.price is not None:
            numbers[name]["price"] = hours * device.price
            row.append(f"{hours * device.price:,.2f}")
        rows.append(row)
    columns = ["model", "parameters", "FLOPs", "exaFLOPs", "TPUv3-core-days", f"{found.name}-hours", "largest batch"]
    return ResultTable(
        title=f"What every model costs: {epochs:g} epochs of {counted(images, 'image')} at "
        f"{changes.image_size or 224} pixels",
        columns=columns if device.price is None else [*columns, "price"],
        rows=rows,
        notes=[
            f"Time: at {100 * device.utilisation:g} % of the peak. Largest batch: of training on {found.name}, "
            f"{device.precision}."
        ],
        numbers=numbers,
    )


def _bytes(count: int) -> str:
    return f"{_scaled(count)}B"


def _scaled(count: float, largest: str = "G") -> str:
    """A number in thousands, millions or billions, up to the largest unit, such as 86.57 M; small ones as they are."""
    if count < 1000:
        return f"{count:,.0f} "
    unit = min(next(number for number in (3, 2, 1) if count >= 1000**number), " kMG".index(largest))
    return f"{count / 1000**unit:,.2f} {' kMG'[unit]}"
