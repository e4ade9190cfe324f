"""The one training loop. A run is a recipe; pretraining and fine-tuning differ only in its values."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from vitlab.data import loader
from vitlab.data.assembly import prefetched
from vitlab.data.augmentation.mixing import check_ranks
from vitlab.data.in_memory import fit_in_memory
from vitlab.data.loader import Batch
from vitlab.data.sources import Source
from vitlab.errors import Interrupted, TrainingFailed, UserError
from vitlab.models.build import Model
from vitlab.progress import Progress
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime, seeded
from vitlab.training import checkpoint, loggers, memory, parallel
from vitlab.training.checkpoint import CheckpointWriter
from vitlab.training.checkpoint_files import remove_debris
from vitlab.training.divergence import Diverged, FiniteWatch
from vitlab.training.metrics import MetricsTracker
from vitlab.training.optimizers import learning_rate
from vitlab.training.rank_sync import RankSync, StopRequest, Synced, watching
from vitlab.training.run_directory import RunDirectory
from vitlab.training.state import start
from vitlab.training.step import MicrobatchMaker, StepResult, set_learning_rate, update
from vitlab.training.thread_replicas import thread_replicas_of
from vitlab.training.validation import Hook, is_over, validate
from vitlab.weights.formats import native

__all__ = ["Hook", "Trainer", "TrainingFailed"]


class Trainer:
    """Trains a model by a recipe, from the newest checkpoint of a run's directory or from the start.

    Where several processes are one run, all make the same trainer, and each learns from its share of every batch.

    Args:
        recipe: every choice of the run.
        model: (batch, 3, height, width) -> (batch, classes), with its preprocessing; changed in place.
        source: the training images.
        run: where checkpoints, metrics and the finished model are written.
        runtime: device, precision and processes.
        progress: shows how far training has come.
        hooks: called in the first process with (step, model) every `recipe.evaluate_every` steps and at the end, on
            the weights that are kept (the average, if there is one); what they return is logged. If that has a
            "validation_top1", the weights with the highest one are kept.

    Raises:
        UserError: a batch that cannot be divided among the processes, or settings that exclude each other.
    """

    def __init__(
        self, recipe: Recipe, model: Model, source: Source, run: RunDirectory, *,
        runtime: Runtime, progress: Progress, hooks: Sequence[Hook] = (),
    ) -> None:  # fmt: skip
        self._recipe, self._model, self._source, self._run = recipe, model, source, run
        self._runtime = runtime = replace(runtime, compute=runtime.compute_of(recipe.scale.precision))
        self._progress, self._hooks = progress, hooks
        _check_batch(recipe, runtime)
        model.to(runtime.device)
        threads = thread_replicas_of(recipe, model, runtime)
        self._workers = _decoding_threads(recipe, model, source, threads)
        count = memory.microbatches_of(recipe, model, runtime) * threads
        self._microbatches = MicrobatchMaker(recipe, model.preprocessing, len(source.classes), runtime, count)
        self._replica = parallel.parallelize(model, recipe.scale, runtime, threads)
        self._state = start(self._replica, recipe)
        self._total = recipe.total_steps(len(source))
        self._request = StopRequest()
        self._writer = CheckpointWriter(run.checkpoints, self._state, runtime, recipe.checkpoint.keep)
        self._ranks = RankSync(runtime, self._request, self._writer)
        self._metrics = MetricsTracker(model, runtime, self._total)
        self._finite = FiniteWatch(source, runtime)
        self._log: loggers.Logger = loggers.to_nowhere

    def fit(self) -> Model:
        """Train to the end.

        Returns:
            The model with the weights that are kept; in the first process at least.

        Raises:
            TrainingFailed: the loss or a gradient is not finite, or memory ran out; the newest checkpoint is intact.
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            UserError: an image cannot be read, or a checkpoint not be written.
        """
        with self._running() as (first, batches):
            done = first
            for batch, synced in batches:
                if synced.signal is not None or self._is_over():
                    break
                done = batch.step + 1
                self._count_skipped(batch, synced)
                if synced.rows:
                    with self._prepared_for(done):
                        result = update(
                            self._replica, self._state.optimizer, self._microbatches.of(batch), synced.rows,
                            objective=self._recipe.objective, clip_norm=self._recipe.optimizer.clip_norm,
                            runtime=self._runtime,
                        )  # fmt: skip
                    self._note(done, batch, result)
                self._after(done)
            self._save_and_leave_if_asked(done)
        return self._finish()

    @contextmanager
    def _running(self) -> Iterator[tuple[int, Iterator[tuple[Batch, Synced]]]]:
        """Inside, signals are watched and checkpoints written; gives the step to go on from, and the batches."""
        first = checkpoint.load_newest(self._run.checkpoints, self._state, self._runtime)
        if self._runtime.is_first:
            remove_debris(self._run.checkpoints)
            self._run.forget_after(first)
        self._metrics.restart_clock()
        with ExitStack() as opened:
            opened.enter_context(watching(self._request))
            opened.enter_context(self._writer)
            wanted = self._runtime.is_first
            self._log = opened.enter_context(loggers.opened(self._recipe, self._run.path, first, wanted=wanted))
            batches = opened.enter_context(closing(self._batches(first)))
            self._replica.model.train()
            if first and self._is_due(first, self._recipe.evaluate_every) and self._state.progress.evaluated < first:
                self._evaluate(first)  # a signal had interrupted it
            try:
                yield first, self._ranks.over(batches)
            except Diverged:
                self._ranks.settle()  # the checkpoint that is being written is good, and is moved into place
                raise
            self._ranks.settle()
            if self._runtime.is_first and self._workers != 0 and (advice := self._metrics.advice()):
                self._progress.print(advice)

    def _batches(self, first: int) -> Generator[Batch]:
        """The batches from a step on, on the device, in a form that can be closed early."""
        recipe, runtime = self._recipe, self._runtime
        batches = loader.training_batches(
            self._source, self._model.preprocessing, recipe.augmentation,
            batch_size=recipe.batch_size, seed=recipe.seed, first_step=first, steps=self._total,
            workers=self._workers, rank=runtime.rank, ranks=runtime.ranks, bad_images=recipe.data.bad_images,
            order=recipe.data.order, pin_memory=runtime.device.type == "cuda",
        )  # fmt: skip
        yield from prefetched(batches, runtime.device)

    def _count_skipped(self, batch: Batch, synced: Synced) -> None:
        progress = self._state.progress
        if batch.skipped and not progress.skipped_images:
            self._progress.print(f"left out: {batch.skipped[0]}; others like it are counted")
        progress.skipped_images += synced.skipped
        progress.skipped_steps += not synced.rows

    @contextmanager
    def _prepared_for(self, step: int) -> Iterator[None]:
        """Inside, an update has its learning rate, its random numbers and its share of the cores."""
        recipe, runtime = self._recipe, self._runtime
        set_learning_rate(self._state.optimizer, self._rate(step))
        # Each process draws its own dropout; a run of one draws as it always did.
        purpose = ("step", step) if runtime.ranks == 1 else ("step", step, "rank", runtime.rank)
        failing = memory.shortage_as_failure(recipe, runtime, step)
        with failing, seeded(recipe.seed, *purpose), self._replica.on_own_cores():
            yield

    def _note(self, step: int, batch: Batch, result: StepResult) -> None:
        self._finite.note(step, batch, result)
        self._metrics.add(result, batch.waited)
        if self._state.average is not None:
            self._state.average.update(self._state.weights)

    def _after(self, step: int) -> None:
        """Log, evaluate and save where it is due."""
        recipe = self._recipe
        if self._is_due(step, recipe.log_every):
            self._report(step)
        if self._is_due(step, recipe.evaluate_every):
            self._evaluate(step)
        if self._is_due(step, recipe.checkpoint_every) or self._state.progress.best_step == step:
            self._save(step)

    def _is_due(self, step: int, every: int) -> bool:
        return step == self._total or (every > 0 and step % every == 0)

    def _is_over(self) -> bool:
        return is_over(self._state.progress, self._recipe.early_stopping)

    def _rate(self, step: int) -> float:
        return learning_rate(self._recipe.schedule, self._recipe.optimizer.learning_rate, step, self._total)

    def _report(self, step: int) -> None:
        self._finite.settle()
        now = self._metrics.read(step, self._rate(step))
        skipped = self._state.progress.skipped_images
        self._write(step, {**now.numbers(), **({"skipped_images": skipped} if skipped else {})})
        if self._runtime.is_first:
            self._progress.update(step, now.text())

    def _evaluate(self, step: int) -> None:
        self._finite.settle()
        numbers = validate(self._hooks, step, self._replica, self._state, self._request, self._runtime)
        if numbers:
            self._write(step, numbers)
            text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self._progress.print(f"step {step}: {text}")
        self._metrics.restart_clock()

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        if self._runtime.is_first:
            self._run.log(**{"step": step, **numbers})
            self._log(step, numbers)

    def _save(self, step: int) -> None:
        self._finite.settle()
        self._ranks.settle()
        self._writer.begin(step)

    def _save_and_leave_if_asked(self, done: int) -> None:
        """Raises Interrupted if a signal came before everything was done."""
        number = self._ranks.ask().signal
        is_last = done == self._total or self._is_over()
        if number is None or (is_last and self._state.progress.evaluated == done):
            return
        if self._writer.newest != done and done:
            self._save(done)
        self._ranks.settle()
        raise Interrupted(number, done)

    def _finish(self) -> Model:
        """The plain model with the weights that are kept, saved."""
        state, runtime = self._state, self._runtime
        if state.progress.best_step:
            checkpoint.load_step(self._run.checkpoints, state.progress.best_step, state)
        finished = parallel.gather_into_model(self._replica, state.kept_weights(), runtime) or self._model
        if runtime.is_first:
            native.save(finished, self._run.model)
        return finished


def _check_batch(recipe: Recipe, runtime: Runtime) -> None:
    size, ranks = recipe.batch_size, runtime.ranks
    if size % ranks:
        lower, upper = size // ranks * ranks, -(-size // ranks) * ranks
        near = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(f"a batch of {size} cannot be divided among {ranks} processes: set batch_size to {near}")
    if recipe.augmentation.mixes:
        check_ranks(size, ranks)


def _decoding_threads(recipe: Recipe, model: Model, source: Source, threads: int) -> int | None:
    """As the recipe says; if it does not, 0 for in-memory images beside thread replicas, which need the cores."""
    if recipe.data.workers is not None or threads == 1:
        return recipe.data.workers
    return 0 if fit_in_memory(source, model.preprocessing, recipe.augmentation, loader.CACHE_BYTES) else None
