"""`vitlab vtab MODEL`: the 19 tasks of VTAB-1k."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.errors import Interrupted, TrainingFailed, UserError
from vitlab.evaluation.uncertainty import interval_text
from vitlab.experiments import vtab
from vitlab.experiments.vtab_folder import Settings, TaskResult, finished, open_folder, released_if_empty
from vitlab.recipes.vtab import TASKS, VtabTask
from vitlab.results import Cell, Headline, ResultTable, percent, write_table
from vitlab.runtime import Runtime, choose

app = options.new_app()


@app.command("vtab")
def run_vtab(
    model: options.ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; run again, it goes on.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder with one per task; else $VITLAB_DATA/vtab, or the hub.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Names separated by commas; all 19 if not given.")] = "",
    linear: Annotated[bool, typer.Option("--linear", help="Least squares on frozen features, no fine-tuning.")] = False,
    rates: Annotated[
        str, typer.Option("--learning-rates", help="Separated by commas; of several the best of 200 images is taken.")
    ] = "0.01",
    steps: options.StepsOption = None,
    seed: options.SeedOption = None,
    changes: options.SetOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Accuracy of MODEL on VTAB-1k: each task is learned from 1,000 images, in 2,500 steps, then tested."""
    given = [f"{key}={value}" for key, value in (("steps", steps), ("seed", seed)) if value is not None]
    settings = Settings(model, linear, _rates(rates), (*(changes or ()), *given))
    vtab.check_assignments(settings)
    chosen = vtab.chosen_tasks([name.strip() for name in tasks.split(",") if name.strip()])
    runtime = choose(device)
    settings = vtab.identified(settings)
    open_folder(out, settings)
    table = _table(_results(chosen, data, settings, out, runtime), settings)
    write_table(table, out / "results" / "vtab.json")
    show(table, as_json=as_json)


def _results(
    chosen: list[VtabTask], data: Path | None, settings: Settings, out: Path, runtime: Runtime
) -> dict[str, TaskResult]:
    """The tasks' results by name; a task that is finished already is not run again."""
    results = _earlier(chosen, data, settings, out)
    for task in chosen:
        if task.name not in results:
            try:
                with released_if_empty(out):
                    results[task.name] = vtab.run_task(task, vtab.source_of(task, data), settings, out, runtime)
            except (Interrupted, TrainingFailed) as end:
                end.args = (f"{end}; the same command continues",)
                raise
        done = results[task.name]
        print(f"{task.label}: {percent(done.accuracy)} of {done.images:,}", file=sys.stderr, flush=True)
    return {task.name: results[task.name] for task in chosen}


def _earlier(chosen: list[VtabTask], data: Path | None, settings: Settings, out: Path) -> dict[str, TaskResult]:
    """The tasks that are finished; all are compared with the data before hours are spent on the others."""
    found: dict[str, TaskResult] = {}
    for task in chosen:
        done = finished(out, task)
        if done is not None:
            vtab.check_data(task, vtab.source_of(task, data), settings, done)
            found[task.name] = done
    return found


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(dict.fromkeys(float(word) for word in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < 1e3 for rate in found):
        raise UserError(f"--learning-rates {text}: write numbers above 0 separated by commas, such as 0.003,0.01")
    return found


def _table(results: dict[str, TaskResult], settings: Settings) -> ResultTable:
    rows = [_row(task, results[task.name]) for task in TASKS if task.name in results]
    groups, score = vtab.group_means(results), vtab.mean(results)
    for group, share in groups.items():
        rows.append([f"mean of {group}", group, None, percent(share), None, None])
    if score is not None:
        rows.append(["mean of 19 tasks", None, None, percent(score), None, None])
    trials = sum(len(result.trials) for result in results.values())
    updates = sum(result.tuning_steps for result in results.values())
    what = "penalties of least squares" if settings.linear else "learning rates"
    tuned = f"Tuning: {trials} trials of {what}, {updates:,} updates, on 800 and 200 images."
    return ResultTable(
        title=f"VTAB-1k of {Path(settings.model).name}, {'linear' if settings.linear else 'fine-tuned'}",
        summary="Each task is learned from 1,000 images and tested on its whole test set.",
        columns=["task", "group", "test images", "top-1", "95 % interval", "chosen"],
        rows=rows,
        notes=[tuned if trials else "Tuning: none; one setting for all tasks."],
        headline=[] if score is None else [Headline("VTAB-1k, 19 tasks", f"{100 * score:.2f}", "%")],
        numbers={
            "tasks": {name: result.accuracy for name, result in results.items()},
            "groups": groups,
            "mean": score,
            "tuning": {"trials": trials, "updates": updates},
            "chosen": {name: result.chosen for name, result in results.items()},
        },
    )


def _row(task: VtabTask, result: TaskResult) -> list[Cell]:
    interval, chosen = interval_text(result.right, result.images), f"{result.chosen:g}"
    return [task.label, task.group, result.images, percent(result.accuracy), interval, chosen]
