"""The one training loop. A run is a recipe; pretraining and fine-tuning differ only in its values."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from vitlab import weights
from vitlab.data import loader
from vitlab.data.augmentation.mixing import check_ranks
from vitlab.data.in_memory import fit_in_memory
from vitlab.data.loader import Batch
from vitlab.data.prefetch import prefetched
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime, seeded
from vitlab.training import checkpoint, memory, parallel, sinks
from vitlab.training.agreement import Agreement
from vitlab.training.checkpoint_files import remove_debris
from vitlab.training.divergence import Diverged, FiniteWatch, TrainingFailed
from vitlab.training.interruption import Interrupted, StopRequest, watching
from vitlab.training.judging import Hook, is_over, judge
from vitlab.training.lanes import lanes_of
from vitlab.training.meter import Meter
from vitlab.training.optimizers import learning_rate
from vitlab.training.parallel import Replica
from vitlab.training.parts import Cutter
from vitlab.training.progress import Display
from vitlab.training.run_directory import RunDirectory
from vitlab.training.saving import Saver
from vitlab.training.state import TrainingState, start
from vitlab.training.step import set_learning_rate, update

__all__ = ["Hook", "TrainingFailed", "train"]


@dataclass(frozen=True, eq=False)
class _Course:
    """What the steps of one run share."""

    recipe: Recipe
    runtime: Runtime
    total: int
    cutter: Cutter
    replica: Replica
    state: TrainingState
    run: RunDirectory
    display: Display
    hooks: Sequence[Hook]
    sink: sinks.Sink
    request: StopRequest
    saver: Saver
    agreement: Agreement
    meter: Meter
    finite: FiniteWatch


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

    Where several processes are one run, all call this alike, and each learns from its share of every batch.

    Args:
        recipe: every choice of the run.
        model: (batch, 3, height, width) -> (batch, classes); changed in place.
        preprocessing: what the model's images go through.
        source: the training images.
        run: where checkpoints, numbers and the finished model go.
        runtime: device, precision and processes.
        display: what a person sees meanwhile.
        hooks: called in the first process with (step, model) every `recipe.evaluate_every` steps and at the end, on
            the weights that are kept (the average, where there is one); what they return is logged. Where that has a
            "validation_top1", the weights of the highest one are kept.

    Returns:
        The model with the weights that are kept; in the first process at least.

    Raises:
        TrainingFailed: the loss or a gradient is not a number, or memory ran out; the newest checkpoint is whole.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
        UserError: an image cannot be read, or a checkpoint not be written.
    """
    runtime = replace(runtime, compute=runtime.compute_of(recipe.scale.precision))
    _check_shares(recipe, runtime)
    model.to(runtime.device)
    lanes = lanes_of(recipe, model, runtime)
    workers = _decoding_threads(recipe, preprocessing, source, lanes)
    parts = memory.parts_of_a_batch(recipe, model, runtime) * lanes
    replica = parallel.spread(model, recipe.scale, runtime, lanes)
    state = start(replica, recipe)
    first = checkpoint.load_newest(run.checkpoints, state, runtime)
    if runtime.is_first:
        remove_debris(run.checkpoints)
        run.forget_after(first)
    total = recipe.total_steps(len(source))
    with (
        watching() as request,
        Saver(run.checkpoints, state, runtime, recipe.scale.keep) as saver,
        sinks.opened(recipe, run.path, first, wanted=runtime.is_first) as sink,
        closing(_batches(recipe, preprocessing, source, runtime, first, total, workers)) as batches,
    ):
        course = _Course(
            recipe, runtime, total, Cutter(recipe, preprocessing, len(source.classes), runtime, parts),
            replica, state, run, display, hooks, sink, request, saver,
            Agreement(runtime, request, saver), Meter(model, runtime, total), FiniteWatch(source, runtime),
        )  # fmt: skip
        replica.model.train()
        try:
            done = _steps(course, batches, first)
        except Diverged:
            course.agreement.settle()  # the checkpoint that is under way is good, and comes into place
            raise
        _save_and_leave_if_asked(course, done)
        course.agreement.settle()
        if runtime.is_first and workers != 0 and (advice := course.meter.advice()):
            display.say(advice)
    return _finish(course, model)


def _check_shares(recipe: Recipe, runtime: Runtime) -> None:
    size, ranks = recipe.batch_size, runtime.ranks
    if size % ranks:
        lower, upper = size // ranks * ranks, -(-size // ranks) * ranks
        near = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(f"a batch of {size} cannot be shared out to {ranks} processes: set batch_size to {near}")
    if recipe.augmentation.mixes:
        check_ranks(size, ranks)


def _decoding_threads(recipe: Recipe, preprocessing: Preprocessing, source: Source, lanes: int) -> int | None:
    """As the recipe says; without a choice there, none for in-memory images beside lanes, whose cores they need."""
    workers = recipe.data.workers
    if workers is None and lanes > 1 and fit_in_memory(source, preprocessing, recipe.augmentation, loader.CACHE_BYTES):
        return 0
    return workers


def _batches(
    recipe: Recipe,
    preprocessing: Preprocessing,
    source: Source,
    runtime: Runtime,
    first: int,
    total: int,
    workers: int | None,
) -> Generator[Batch]:
    """The batches from a step on, in a form that can be closed early."""
    batches = loader.training_batches(
        source, preprocessing, recipe.augmentation,
        batch_size=recipe.batch_size, seed=recipe.seed, first_step=first, steps=total,
        workers=workers, rank=runtime.rank, ranks=runtime.ranks, bad_images=recipe.data.bad_images,
        order=recipe.data.order, pin_memory=runtime.device.type == "cuda",
    )  # fmt: skip
    yield from prefetched(batches, runtime.device)


def _steps(course: _Course, batches: Iterator[Batch], first: int) -> int:
    """All steps, until the end or a request to stop; returns the last one done."""
    recipe, progress, total = course.recipe, course.state.progress, course.total
    if first and _due(first, recipe.evaluate_every, total) and progress.evaluated < first:
        _evaluate(course, first)  # a signal had broken it off
    done = first
    for batch, agreed in course.agreement.over(batches):
        if agreed.signal is not None or is_over(progress, recipe.scale):
            break
        done = batch.step + 1
        _count_skipped(course, batch, agreed.skipped)
        _learn(course, done, batch, agreed.rows)
        if _due(done, recipe.log_every, total):
            _report(course, done)
        if _due(done, recipe.evaluate_every, total):
            _evaluate(course, done)
        if _due(done, recipe.checkpoint_every, total) or progress.best_step == done:
            _save(course, done)
    return done


def _count_skipped(course: _Course, batch: Batch, skipped_by_all: int) -> None:
    progress = course.state.progress
    if batch.skipped and not progress.skipped_images:
        course.display.say(f"left out: {batch.skipped[0]}; others like it are counted")
    progress.skipped_images += skipped_by_all


def _due(step: int, every: int, total: int) -> bool:
    return step == total or (every > 0 and step % every == 0)


def _learn(course: _Course, step: int, batch: Batch, rows_of_all: int) -> None:
    """One update, from this process's share of a batch."""
    recipe, state, runtime = course.recipe, course.state, course.runtime
    if not rows_of_all:
        state.progress.skipped_steps += 1
        return
    set_learning_rate(state.optimizer, _rate(course, step))
    # Each process draws its own dropout; a run of one draws as it always did.
    purpose = ("step", step) if runtime.ranks == 1 else ("step", step, "rank", runtime.rank)
    with memory.shortage_told(recipe, runtime, step), seeded(recipe.seed, *purpose):
        result = update(
            course.replica, state.optimizer, course.cutter.parts(batch), rows_of_all,
            objective=recipe.objective, clip_norm=recipe.optimizer.clip_norm, runtime=runtime,
        )  # fmt: skip
    course.finite.note(step, batch, result)
    course.meter.add(result, batch.waited)
    if state.average is not None:
        state.average.update(state.weights)


def _rate(course: _Course, step: int) -> float:
    return learning_rate(course.recipe.schedule, course.recipe.optimizer.learning_rate, step, course.total)


def _report(course: _Course, step: int) -> None:
    course.finite.settle()
    moment = course.meter.read(step, _rate(course, step))
    skipped = course.state.progress.skipped_images
    _log(course, step, {**moment.numbers(), **({"skipped_images": skipped} if skipped else {})})
    if course.runtime.is_first:
        course.display.show(moment)


def _evaluate(course: _Course, step: int) -> None:
    course.finite.settle()
    numbers = judge(course.hooks, step, course.replica, course.state, course.request, course.runtime)
    if numbers:
        _log(course, step, numbers)
        course.display.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    course.meter.restart_clock()


def _log(course: _Course, step: int, numbers: dict[str, float]) -> None:
    if course.runtime.is_first:
        course.run.log(**{"step": step, **numbers})
        course.sink(step, numbers)


def _save(course: _Course, step: int) -> None:
    course.finite.settle()
    course.agreement.settle()
    course.saver.begin(step)


def _save_and_leave_if_asked(course: _Course, done: int) -> None:
    """Raises Interrupted where a signal came before all was done."""
    progress = course.state.progress
    number = course.agreement.ask().signal
    is_last = done == course.total or is_over(progress, course.recipe.scale)
    if number is None or (is_last and progress.evaluated == done):
        return
    if course.saver.newest != done and done:
        _save(course, done)
    course.agreement.settle()
    raise Interrupted(number, done)


def _finish(course: _Course, model: Model) -> Model:
    """The plain model with the weights that are kept, saved."""
    state, runtime = course.state, course.runtime
    if state.progress.best_step:
        checkpoint.load_step(course.run.checkpoints, state.progress.best_step, state)
    finished = parallel.give_whole(course.replica, state.kept_weights(), runtime) or model
    if runtime.is_first:
        weights.save_model(finished, course.run.model)
    return finished
