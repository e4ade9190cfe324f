"""`vitlab cost MODEL|RECIPE|RUN`: parameters, FLOPs, memory, exaFLOPs, time and price, by arithmetic."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.costing import EPOCHS, CostedTraining, Overrides, check_size, costed_training, counted
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
    """The device that is trained on, and the share of its peak that is reached; `price` is per hour."""

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
        typer.Argument(metavar="MODEL|RECIPE|RUN", help="A model, a recipe, its TOML file, or a run's directory."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every named model, as a table.")] = False,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The recipe's model, if another.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels, if not the model's.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, max=MOST_IMAGES, help="Training images; JFT has 303 million.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=memory.MOST_IMAGES, help="Images at once per device.")] = None,
    precision: Annotated[memory.Precision, typer.Option(help="Of matrix products.")] = "bfloat16",
    device: Annotated[str, typer.Option("--hardware", help="A device, such as H100, A100 or TPUv3-core.")] = "H100",
    device_memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Memory of the device, if different, such as 12GB.")
    ] = None,
    utilisation: Annotated[float, typer.Option(help="Share of the device's peak.")] = 0.4,
    price: Annotated[float | None, typer.Option(help="Price per device-hour.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the paper's Figure 5: .png or .svg.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """What a MODEL, a RECIPE or a RUN costs: nothing is run. A MODEL is trained for 7 epochs of JFT, as in Table 6."""
    if every == (name is not None):
        raise UserError("cost: give a MODEL, a RECIPE or a RUN, or --all for every model")
    _check_numbers(epochs, utilisation, price)
    found = hardware.find(device)
    if device_memory is not None:
        found = replace(found, memory=memory.bytes_of(device_memory))
    used, changes = _Device(found, precision, utilisation, price), Overrides(model, image_size, epochs, images, batch)
    table = _zoo_table(changes, used) if name is None else _table(costed_training(name, changes), used)
    if plot is not None:
        from vitlab.report.plots import figure_5, save_figure

        save_figure(figure_5(), plot)
    show(table, as_json=as_json)


def _check_numbers(epochs: float | None, utilisation: float, price: float | None) -> None:
    """Refuses what typer's own ranges accept: infinity and NaN."""
    if epochs is not None and not 0 < epochs < MOST_EPOCHS:
        raise UserError(f"--epochs {epochs:g}: give a number above 0 and below {MOST_EPOCHS:,.0f}")
    if price is not None and not 0 <= price <= HIGHEST_PRICE:
        raise UserError(f"--price {price:g}: give a number from 0 to {HIGHEST_PRICE:,.0f}")
    if not LEAST_UTILISATION <= utilisation <= 1:
        raise UserError(f"--utilisation {utilisation:g}: give a share of the peak in (0, 1], such as 0.4")


@dataclass(frozen=True)
class _Costs:
    """What a training costs on a device.

    Attributes:
        largest_batch: that fits into the device's memory.
        h100_hours: in bfloat16.
    """

    optimizer: memory.Optimizer
    memory: memory.Memory
    largest_batch: int
    core_days: float
    h100_hours: float
    device_hours: float


def _costs(training: CostedTraining, device: _Device) -> _Costs:
    recipe, config, exaflops = training.recipe, training.config, training.exaflops
    optimizer: memory.Optimizer = recipe.optimizer.kind if recipe else "adamw"
    averaging, recompute = (bool(recipe.averaging), recipe.scale.recompute) if recipe else (False, False)
    return _Costs(
        optimizer=optimizer,
        memory=memory.training_memory(
            config, training.microbatch, precision=device.precision, optimizer=optimizer, averaging=averaging,
            recompute=recompute,
        ),
        largest_batch=memory.largest_batch(
            config, device.hardware.memory, precision=device.precision, optimizer=optimizer, averaging=averaging,
            recompute=recompute,
        ),
        core_days=cost.tpu_v3_core_days(exaflops, device.utilisation),
        h100_hours=device_hours(exaflops, hardware.find("H100").peak(H100_PRECISION), device.utilisation),
        device_hours=device.hours(exaflops),
    )  # fmt: skip


def _table(training: CostedTraining, device: _Device) -> ResultTable:
    costs = _costs(training, device)
    return ResultTable(
        title=f"What {training.name} costs",
        columns=["", "by arithmetic"],
        rows=[*_model_rows(training, costs), *_training_rows(training, costs, device)],
        notes=[
            f"Time: at {100 * device.utilisation:g} % of the peak. exaFLOPs: as in the paper's Table 6, products with "
            "padding left out. Memory: PyTorch's tensors; a device's own context is not included.",
            *training.notes,
        ],
        numbers=_numbers(training, costs, device),
    )


def _model_rows(training: CostedTraining, costs: _Costs) -> list[list[Cell]]:
    config = training.config
    tokens: list[list[Cell]] = [["tokens", config.tokens]] if isinstance(config, ViTConfig) else []
    return [
        ["parameters", _scaled(cost.parameters(config), largest="M")],
        ["image size", " x ".join(map(str, config.image_hw))],
        *tokens,
        ["FLOPs per image, forward", _scaled(cost.flops(config))],
        ["FLOPs per image, training", _scaled(cost.FORWARD_AND_BACKWARD * cost.flops(config))],
    ]


def _training_rows(training: CostedTraining, costs: _Costs, device: _Device) -> list[list[Cell]]:
    needed, found, batch = costs.memory, device.hardware, counted(training.microbatch, "image")
    held = needed.weights + needed.gradients + needed.moments + needed.average
    rows: list[list[Cell]] = [
        [f"weights, gradients, optimizer ({costs.optimizer})", _bytes(held)],
        [f"activations of {batch}, {device.precision}", _bytes(needed.activations)],
        [f"peak memory in training, {batch}", _bytes(needed.peak)],
        [f"largest training batch on {found.name} ({found.memory / 1e9:.0f} GB)", f"{costs.largest_batch:,}"],
        [f"training: {training.length}", f"{training.exaflops:,.4g} exaFLOPs"],
        ["TPUv3-core-days", f"{costs.core_days:,.4g}"],
        ["H100-hours", f"{costs.h100_hours:,.4g}"],
    ]
    if (found.name, device.precision) != ("H100", H100_PRECISION):
        rows.append([f"{found.name}-hours, {device.precision}", f"{costs.device_hours:,.4g}"])
    if device.price is not None:
        rows.append(["price", f"{costs.device_hours * device.price:,.2f}"])
    return rows


def _numbers(training: CostedTraining, costs: _Costs, device: _Device) -> dict[str, object]:
    config = training.config
    return {
        "parameters": cost.parameters(config), "classes": config.num_classes, "flops": cost.flops(config),
        "exaflops": training.exaflops, "epochs": training.epochs, "images": training.images, "steps": training.steps,
        "batch": training.microbatch, "precision": device.precision, "training_memory": costs.memory.peak,
        "activations": costs.memory.activations, "largest_batch": costs.largest_batch,
        "hardware": device.hardware.name, "utilisation": device.utilisation, "tpu_v3_core_days": costs.core_days,
        "h100_hours": costs.h100_hours, "device_hours": costs.device_hours,
        **({"price": costs.device_hours * device.price} if device.price is not None else {}),
    }  # fmt: skip


def _every_model(changes: Overrides) -> dict[str, ModelConfig]:
    """Every named model at the wanted image size; options that are for a single model are refused."""
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


def _zoo_table(changes: Overrides, device: _Device) -> ResultTable:
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
            f"Time: at {100 * device.utilisation:g} % of the peak. Largest batch: in training on {found.name}, "
            f"{device.precision}."
        ],
        numbers=numbers,
    )


def _bytes(count: int) -> str:
    return f"{_scaled(count)}B"


def _scaled(count: float, largest: str = "G") -> str:
    """A number in thousands, millions or billions, up to the largest unit, such as 86.57 M."""
    if count < 1000:
        return f"{count:,.0f} "
    unit = min(next(number for number in (3, 2, 1) if count >= 1000**number), " kMG".index(largest))
    return f"{count / 1000**unit:,.2f} {' kMG'[unit]}"
