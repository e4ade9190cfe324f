"""The cost of a run: its compute, the throughput of the machine, and both in the paper's units."""

import statistics

from vitlab.recipes import cost
from vitlab.report.content import RunContent
from vitlab.results import ResultTable

UTILISATION = 0.4  # the paper's runs reached 32 to 43 % of a core's peak


def images_seen(run: RunContent) -> int | None:
    """The number of images that a run was trained on, repetitions included; None if unknown."""
    if run.recipe is None:
        return None
    steps = max((int(line.steps[-1]) for line in run.series), default=0)
    return steps * run.recipe.batch_size or None


def exaflops_of(run: RunContent) -> float | None:
    """A run's training compute in 10**18 FLOPs, as in the paper's Table 6, without that of its initial weights."""
    seen = images_seen(run)
    if run.config is None or seen is None:
        return None
    return cost.exaflops(run.config, 1, seen)


def cost_table(run: RunContent) -> ResultTable | None:
    """The cost of a run as a table; None if its model or its steps are unknown."""
    exaflops, seen = exaflops_of(run), images_seen(run)
    if exaflops is None or seen is None or run.config is None:
        return None
    core_days = cost.tpu_v3_core_days(exaflops, UTILISATION)
    rows: list[tuple[str, str]] = [
        ("parameters", f"{cost.parameters(run.config):,}"),
        ("FLOPs per image, forward pass", f"{cost.flops(run.config):.4g}"),
        ("images seen", f"{seen:,}"),
        ("training compute (exaFLOPs)", f"{exaflops:.4g}"),
        (f"TPUv3-core-days at {UTILISATION:.0%}", f"{core_days:.4g}"),
    ]
    speed = _median(run, "images_per_second")
    if speed:
        rows.append(("throughput (images/s, median)", f"{speed:,.1f}"))
        done = cost.FORWARD_AND_BACKWARD * cost.executed_flops(run.config) * speed
        rows.append(("executed FLOPs per second", f"{done:.4g}"))
        rows.append(("training time at this throughput (hours)", f"{seen / speed / 3600:.3g}"))
    mfu, waited = _median(run, "mfu"), _median(run, "data_wait")
    peak = max(_values(run, "memory_bytes"), default=0.0)
    if mfu is not None:
        rows.append(("model FLOPs utilisation (MFU, median)", f"{mfu:.1%}"))
    if waited is not None:
        rows.append(("time spent waiting for data (median)", f"{waited:.1%}"))
    if peak:
        rows.append(("peak memory (GB)", f"{peak / 1e9:.3g}"))
    rows += _energy(run)
    return ResultTable("Training cost", ("", "this run"), rows, numbers={"exaflops": exaflops, "core_days": core_days})


def _energy(run: RunContent) -> list[tuple[str, str]]:
    """A row if energy was measured; a run that was resumed elsewhere may have it for some of its steps only."""
    joules, lines = _values(run, "energy_joules"), len(_values(run, "images_per_second"))
    if not joules:
        return []
    some = "" if len(joules) >= lines else f" ({len(joules)} of {lines} lines)"
    return [(f"measured energy (kWh){some}", f"{sum(joules) / 3.6e6:.3g}")]


def _values(run: RunContent, name: str) -> tuple[float, ...]:
    return next((line.values for line in run.series if line.name == name), ())


def _median(run: RunContent, name: str) -> float | None:
    values = _values(run, name)
    return statistics.median(values) if values else None
