"""One process of one run in a trial: a tiny model, saved after every step, with a log of its samples."""

import dataclasses
import errno
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

# What torch imports at first use takes seconds: it is done before the fork.
import torch._dynamo
import torch.distributed.device_mesh
import torch.distributed.fsdp
import torch.nn.parallel

from vitlab import create_model
from vitlab.data import loader
from vitlab.datasets.catalog import open_source
from vitlab.errors import Interrupted, RankLost, TrainingFailed, UserError
from vitlab.models.build import Model
from vitlab.progress import Progress
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import Runtime, choose, process_group, raise_on_all, seeded
from vitlab.training import checkpoint, checkpoint_files, objectives, trainer
from vitlab.training.run_directory import RunDirectory, open_run
from vitlab.training.state import TrainingState
from vitlab.training.trainer import Trainer

STEPS = 12
ROWS = ("images_BHWC", "labels_B", "indices_B", "epochs_B", "positions_B")
TINY = dict(patch=7, hidden=16, layers=1, mlp=16, heads=2)
_warm: dict = {}


def prepare() -> None:
    """What every trial needs, done once before forking."""
    torch.set_num_threads(1)
    _warm["source"] = open_source("digits", "train")
    _warm["recipe"] = with_changes(
        library.load_recipe("demo-upstream"),
        [
            f"steps={STEPS}", "batch_size=12", "averaging=0.9", "checkpoint_every=1", "log_every=1",
            "evaluate_every=3", "schedule.warmup_steps=2",
        ],
    )  # fmt: skip


def carry_out(path: Path, order: dict) -> int:
    """Train, from the start or from what stands in `path`; returns the exit code that the command line would."""
    recipe = with_changes(_warm["recipe"], order.get("changes", []))
    _log_samples(path.parent / f"{path.name}.samples")
    if "crash_at" in order:
        crash_at(order["crash_at"])
    if "fail_at" in order:
        fail_at(order["fail_at"])
    for fault in order.get("faults", []):
        FAULTS[fault]()
    try:
        with process_group(choose("cpu")) as runtime:
            # ThreadReplicas draw no random numbers.
            dropout = 0.1 if recipe.scale.thread_replicas == "auto" else 0.0
            _train(path, recipe, runtime, order.get("dropout", dropout))
    except (UserError, Interrupted, TrainingFailed, RankLost) as end:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"vitlab: {end}", file=sys.stderr)
        return end.exit_code
    return 0


def start(dropout: float = 0.0) -> Model:
    """The model that a trial of seed 0 starts with."""
    with seeded(0, "initialisation"):
        return create_model("ViT-Ti/7", num_classes=10, image_size=28, dropout=dropout, **TINY)


def _train(path: Path, recipe: Recipe, runtime: Runtime, dropout: float) -> None:
    source, model = _warm["source"], start(dropout)
    with ExitStack() as opened:
        with raise_on_all(runtime):
            run = RunDirectory(path)
            if runtime.is_first:
                given = dict(data=source.fingerprint, environment={}, resume=True)
                run = opened.enter_context(open_run(path, recipe, **given))
        Trainer(
            recipe, model, source, run,
            runtime=runtime, progress=Progress(), hooks=[_look],
        ).fit()  # fmt: skip


def _look(step: int, model: Model) -> dict[str, float]:
    """An evaluation in small."""
    with torch.inference_mode():
        model.eval()
        total = float(model(torch.zeros(2, 3, 28, 28)).sum())
        model.train()
    return {"total": total}


def _log_samples(path: Path) -> None:
    """Every batch's samples, when the loop takes it; a step that is done again is logged again.

    One image of the second step counts as unreadable, so that shares differ in size and something is counted.
    """
    batches = loader.training_batches

    def logged(*given, **named) -> Iterator[loader.Batch]:
        for batch in batches(*given, **named):
            if batch.step == 1 and named["rank"] == 0:
                batch = _without_first(batch)
            line = f"{batch.step} {named['rank']} {batch.indices_B.tolist()} {batch.epochs_B.tolist()}\n"
            with path.open("ab", buffering=0) as log:
                log.write(line.encode())
            yield batch

    loader.training_batches = logged


def _lose_an_image(step: int, rank: int) -> None:
    """One process forgets the first image of its share in one step."""
    batches = loader.training_batches

    def losing(*given, **named) -> Iterator[loader.Batch]:
        for batch in batches(*given, **named):
            yield _without_first(batch) if (batch.step, named["rank"]) == (step, rank) else batch

    loader.training_batches = losing


def _forget_the_factor_of_the_processes() -> None:
    """Gradients are averaged over the processes, and each image weighs 1 / images: half of what it should."""
    total, ranks = objectives.total, int(os.environ.get("WORLD_SIZE", "1"))
    objectives.total = lambda *given: total(*given) / ranks


def _without_first(batch: loader.Batch) -> loader.Batch:
    shorter = {name: getattr(batch, name)[1:] for name in ROWS}
    return dataclasses.replace(batch, **shorter, skipped=("unreadable",))


def _forgetting(forget) -> None:
    """Damage the state after it was read from a checkpoint."""
    restore = checkpoint.restore

    def damaged(folder, about, state: TrainingState) -> None:
        restore(folder, about, state)
        with torch.no_grad():
            forget(state)

    checkpoint.restore = damaged


def _forget_moments(key: str) -> None:
    def forget(state: TrainingState) -> None:
        for values in state.optimizer.state.values():
            values[key].zero_()

    _forgetting(forget)


def _forget_average(state: TrainingState) -> None:
    for value in state.average.means.values():
        value.zero_()


def _forget_updates(state: TrainingState) -> None:
    state.average.updates = 0


def _forget_one_weight(state: TrainingState) -> None:
    state.weights["blocks.0.mlp.fc1.weight"].zero_()


def _forget_progress(state: TrainingState) -> None:
    state.progress.skipped_images = 0


def _forget_cursor() -> None:
    load = checkpoint.load_newest
    checkpoint.load_newest = lambda *given: max(0, load(*given) - 1)


def _spoil_the_last_ranks_loss(spoil) -> None:
    """In step 3 the last process's loss is not a number."""
    total, calls = objectives.total, []

    def poisoned(logits_BK, targets, objective):
        calls.append(None)
        is_last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        loss = total(logits_BK, targets, objective)
        return spoil(loss) if len(calls) == 3 and is_last else loss

    objectives.total = poisoned


def _bad_image_on_the_last_rank() -> None:
    batches = loader.training_batches

    def broken(*given, **named) -> Iterator[loader.Batch]:
        for batch in batches(*given, **named):
            if batch.step == 3 and named["rank"] == named["ranks"] - 1:
                raise UserError("cat.jpg is truncated; remove it, or use --bad-images skip")
            yield batch

    loader.training_batches = broken


def _endless_evaluation() -> None:
    """The hook asks for the end of its own process, and goes on for ever."""

    def forever(step: int, model: Model) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass

    trainer.validate = functools.partial(_judge_by, trainer.validate, [forever])


def _judge_by(validate, hooks, _given, *rest):
    return validate(hooks, *rest)


def _slow_saving() -> None:
    """A signal comes while a checkpoint is being written, which takes a while."""
    commit = checkpoint_files.commit

    def slow(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return commit(*given)

    checkpoint_files.commit = slow


def _struck(number: int, step: int, rank: int) -> None:
    """The process sends itself a signal right before an update."""
    batches = loader.training_batches

    def deadly(*given, **named) -> Iterator[loader.Batch]:
        for batch in batches(*given, **named):
            if batch.step == step and named["rank"] == rank:
                os.kill(os.getpid(), number)
            yield batch

    loader.training_batches = deadly


def _full_disk(step: int) -> None:
    """Writing the checkpoint of a step fails half-way, as on a full disk."""
    shards = checkpoint_files._pieces_of_file
    written: list[int] = []

    def failing(tensors):
        written.append(0)
        for number, shard in enumerate(shards(tensors)):
            if len(written) > 3 * step and number == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield shard

    checkpoint_files._pieces_of_file = failing


def crash_at(call: int) -> None:
    """The process is killed right before the n-th call that changes the disk, of those that saving makes."""
    _at_calls_of_saving(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == call else None)


def fail_at(call: int) -> None:
    """The n-th call that changes the disk, of those that saving makes, fails; so do the ones after it."""

    def fail(number: int) -> None:
        if number >= call:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    _at_calls_of_saving(fail)


def _at_calls_of_saving(act) -> None:
    """Before every write, fsync and rename of the thread that saves; tells how many there were, at the end."""
    count = [0]

    def watched(call):
        def watching(*given, **named):
            if threading.current_thread().name.startswith("vitlab-checkpoint"):
                count[0] += 1
                act(count[0])
            return call(*given, **named)

        return watching

    for name in ("write", "fsync", "rename", "mkdir"):
        setattr(os, name, watched(getattr(os, name)))


FAULTS = {
    "forget exp_avg": lambda: _forget_moments("exp_avg"),
    "forget exp_avg_sq": lambda: _forget_moments("exp_avg_sq"),
    "forget Adam's step": lambda: _forget_moments("step"),
    "forget average": lambda: _forgetting(_forget_average),
    "forget average's counter": lambda: _forgetting(_forget_updates),
    "forget one weight": lambda: _forgetting(_forget_one_weight),
    "forget cursor": _forget_cursor,
    "forget progress": lambda: _forgetting(_forget_progress),
    "nan on the last rank": lambda: _spoil_the_last_ranks_loss(lambda loss: loss * float("nan")),
    # The gradient of this one is as it should be, so that nobody else would notice.
    "inf on the last rank": lambda: _spoil_the_last_ranks_loss(lambda loss: loss + float("inf")),
    "bad image on the last rank": _bad_image_on_the_last_rank,
    "stop in an endless evaluation": _endless_evaluation,
    "stop while saving": _slow_saving,
    "rank 0 dies": lambda: _struck(signal.SIGKILL, 5, 0),
    "rank 1 dies": lambda: _struck(signal.SIGKILL, 5, 1),
    "rank 0 is asked to stop": lambda: _struck(signal.SIGTERM, 5, 0),
    "rank 1 is asked to stop": lambda: _struck(signal.SIGTERM, 5, 1),
    "rank 1 loses an image": lambda: _lose_an_image(2, 1),
    "the factor of the processes is forgotten": _forget_the_factor_of_the_processes,
    "disk is full": lambda: _full_disk(3),
}
