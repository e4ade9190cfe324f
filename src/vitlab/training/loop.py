"""The one training loop. A run is a recipe; pretraining and fine-tuning differ only in its values."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from torch import Tensor

from vitlab import weights
from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.models.build import Model
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime, seeded
from vitlab.training.checkpoint import TrainingState, load_newest, save_checkpoint
from vitlab.training.interruption import Interrupted, watching
from vitlab.training.optimizers import PolyakAverage, build_optimizer, learning_rate
from vitlab.training.progress import Display, Moment
from vitlab.training.run_directory import RunDirectory
from vitlab.training.step import Diverged, StepResult, update

Hook = Callable[[int, Model], dict[str, float]]


class TrainingFailed(Exception):
    """Training went wrong on its own: the loss or a gradient stopped being a number."""


def train(
    recipe: Recipe,
    model: Model,
    preprocessing: Preprocessing,
    source: Source,
    run: RunDirectory,
    *,
    runtime: Runtime,
    display: Display,
    hooks: Sequence[Hook] = (),
) -> Model:
    """Train `model` by `recipe` from the newest checkpoint of `run`, or from the start.

    Args:
        recipe: every choice of the run.
        model: (batch, 3, height, width) -> (batch, classes); changed in place.
        preprocessing: what the model's images go through.
        source: the training images.
        run: where checkpoints, numbers and the finished model go.
        runtime: device and precision.
        display: what a person sees meanwhile.
        hooks: called with (step, model) every `recipe.evaluate_every` steps and at the end, on the weights that are
            kept (the average, where there is one); what they return is logged.

    Returns:
        The model with the weights that are kept.

    Raises:
        TrainingFailed: the loss or a gradient is not a number; the newest checkpoint is whole.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    model.to(runtime.device)
    average = PolyakAverage(model, recipe.averaging) if recipe.averaging else None
    state = TrainingState(model, build_optimizer(model, recipe.optimizer), average)
    total = recipe.total_steps(len(source))
    first = load_newest(run.checkpoints, state)
    run.forget_after(first)
    batches = loader.training_batches(
        source, preprocessing, recipe.augmentation,
        batch_size=recipe.batch_size, seed=recipe.seed, first_step=first, steps=total,
    )  # fmt: skip
    meter = _Meter(images_per_step=recipe.batch_size)
    with watching() as request:
        for step, batch in enumerate(batches, start=first + 1):
            rate = learning_rate(recipe.schedule, recipe.optimizer.learning_rate, step, total)
            images_BCHW = loader.normalise(batch.images_BHWC, preprocessing, runtime.device)
            result = _one_step(recipe, state, runtime, step, rate, images_BCHW, batch)
            meter.add(result)
            at_end = step == total
            if at_end or step % recipe.log_every == 0:
                _report(run, display, meter.read(step, rate))
            if at_end or (recipe.evaluate_every and step % recipe.evaluate_every == 0):
                _run_hooks(hooks, step, model, average, run, display)
                meter.restart_clock()
            stopping = request.signal is not None
            if at_end or stopping or (recipe.checkpoint_every and step % recipe.checkpoint_every == 0):
                save_checkpoint(run.checkpoints, step, state)
            if request.signal is not None and not at_end:
                raise Interrupted(request.signal, step)
    return _finish(model, average, run)


def _one_step(
    recipe: Recipe,
    state: TrainingState,
    runtime: Runtime,
    step: int,
    rate: float,
    images_BCHW: Tensor,
    batch: loader.Batch,
) -> StepResult:
    state.model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    try:
        with seeded(recipe.seed, "step", step):
            result = update(
                state.model, state.optimizer, images_BCHW, batch.labels_B.to(runtime.device),
                objective=recipe.objective, clip_norm=recipe.optimizer.clip_norm, runtime=runtime,
            )  # fmt: skip
    except Diverged as error:
        samples = ", ".join(map(str, batch.indices_B.tolist()[:8]))
        raise TrainingFailed(
            f"step {step}: {error}; images {samples}, ... of the training set; nothing was changed by this step. "
            "Try a lower optimizer.learning_rate or a longer schedule.warmup_steps"
        ) from None
    if state.average is not None:
        state.average.update(state.model)
    return result


def _run_hooks(
    hooks: Sequence[Hook],
    step: int,
    model: Model,
    average: PolyakAverage | None,
    run: RunDirectory,
    display: Display,
) -> None:
    for hook in hooks:
        with average.lent_to(model) if average is not None else nullcontext():
            numbers = hook(step, model)
        run.log(step=step, **numbers)
        display.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))


def _report(run: RunDirectory, display: Display, moment: Moment) -> None:
    run.log(
        step=moment.step, loss=moment.loss, accuracy=moment.accuracy, learning_rate=moment.learning_rate,
        images_per_second=moment.images_per_second,
    )  # fmt: skip
    display.show(moment)


def _finish(model: Model, average: PolyakAverage | None, run: RunDirectory) -> Model:
    if average is not None and average.updates:
        average.give_to(model)
    weights.save_model(model, run.model)
    return model


@dataclass
class _Meter:
    """Means over the steps since the last reading. Reading waits for the device, so it is not done every step."""

    images_per_step: int
    results: list[StepResult] = field(default_factory=list)
    since: float = field(default_factory=time.perf_counter)

    def add(self, result: StepResult) -> None:
        self.results.append(result)

    def restart_clock(self) -> None:
        self.since = time.perf_counter()

    def read(self, step: int, rate: float) -> Moment:
        loss = sum(float(result.loss) for result in self.results) / len(self.results)
        accuracy = sum(float(result.accuracy) for result in self.results) / len(self.results)
        now = time.perf_counter()
        moment = Moment(step, loss, accuracy, len(self.results) * self.images_per_step / (now - self.since), rate)
        self.results, self.since = [], now
        return moment
