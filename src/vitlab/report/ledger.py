"""What a run cost: its arithmetic, how fast the machine did it, and what that is in the paper's units."""

import statistics

from vitlab.recipes import cost
from vitlab.report.content import Part
from vitlab.results import ResultTable

UTILISATION = 0.4  # the paper's runs reached 32 to 43 % of a core's peak


def images_seen(part: Part) -> int | None:
    """How many images a run trained on, each as often as it was seen; none where it is not known."""
    if part.recipe is None:
        return None
    steps = max((int(line.steps[-1]) for line in part.series), default=0)
    return steps * part.recipe.batch_size or None


def exaflops_of(part: Part) -> float | None:
    """A run's training compute in 10**18 FLOPs, counted as the paper's Table 6 does; its start's is not in it."""
    seen = images_seen(part)
    if part.config is None or seen is None:
        return None
    return cost.exaflops(part.config, 1, seen)


def ledger(part: Part) -> ResultTable | None:
    """The run's costs as a table; none where its model or its steps are not known."""
    exaflops, seen = exaflops_of(part), images_seen(part)
    if exaflops is None or seen is None or part.config is None:
        return None
    core_days = cost.tpu_v3_core_days(exaflops, UTILISATION)
    rows: list[tuple[str, str]] = [
        ("parameters", f"{cost.parameters(part.config):,}"),
        ("FLOPs of an image, forward", f"{cost.flops(part.config):.4g}"),
        ("images seen", f"{seen:,}"),
        ("training compute, exaFLOPs", f"{exaflops:.4g}"),
        (f"TPUv3-core-days at {UTILISATION:.0%}", f"{core_days:.4g}"),
    ]
    speed = _median(part, "images_per_second")
    if speed:
        rows.append(("images a second, median", f"{speed:,.1f}"))
        done = cost.FORWARD_AND_BACKWARD * cost.executed_flops(part.config) * speed
        rows.append(("FLOPs a second, as they are done", f"{done:.4g}"))
        rows.append(("hours at that speed", f"{seen / speed / 3600:.3g}"))
    mfu, waited, most = _median(part, "mfu"), _median(part, "data_wait"), _most(part, "memory_bytes")
    if mfu is not None:
        rows.append(("MFU, median", f"{mfu:.1%}"))
    if waited is not None:
        rows.append(("waiting for images, median", f"{waited:.1%}"))
    if most:
        rows.append(("most memory, GB", f"{most / 1e9:.3g}"))
    rows += _energy(part)
    return ResultTable(
        "What it cost", ("", "this run"), tuple(rows), numbers={"exaflops": exaflops, "core_days": core_days}
    )


def _energy(part: Part) -> list[tuple[str, str]]:
    """A row where energy was told; a run that went on elsewhere may know that of a part of its steps only."""
    joules, lines = _values(part, "energy_joules"), len(_values(part, "images_per_second"))
    if not joules:
        return []
    some = "" if len(joules) >= lines else f" ({len(joules)} of {lines} lines)"
    return [(f"energy of training as far as told, kWh{some}", f"{sum(joules) / 3.6e6:.3g}")]


def _values(part: Part, name: str) -> tuple[float, ...]:
    return next((line.values for line in part.series if line.name == name), ())


def _median(part: Part, name: str) -> float | None:
    values = _values(part, name)
    return statistics.median(values) if values else None


def _most(part: Part, name: str) -> float:
    return max(_values(part, name), default=0.0)
