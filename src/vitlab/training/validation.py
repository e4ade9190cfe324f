"""Validation during training: the best weights so far, and when to stop early."""

from collections.abc import Callable, Sequence

from vitlab.models.build import Model
from vitlab.recipes.schema import EarlyStoppingConfig
from vitlab.runtime import Runtime, all_reduce_sum, raise_on_all
from vitlab.training import parallel
from vitlab.training.parallel import Replica
from vitlab.training.rank_sync import Cancelled, StopRequest
from vitlab.training.state import Progress, TrainingState

Hook = Callable[[int, Model], dict[str, float]]
SCORE = "validation_top1"  # of the numbers that hooks return, the one that says which weights are best


def validate(
    hooks: Sequence[Hook], step: int, replica: Replica, state: TrainingState, request: StopRequest, runtime: Runtime
) -> dict[str, float]:
    """Call the hooks with the weights that are kept, in the first process; returns their numbers there.

    A signal cancels it; `state.progress` then does not record it as done.

    Raises:
        UserError: from a hook, in all processes.
    """
    numbers: dict[str, float] = {}
    done = False
    with parallel.full_model(replica, state.kept_weights(), runtime) as model, raise_on_all(runtime):
        if runtime.is_first:
            assert model is not None
            try:
                with request.cancelling():
                    for hook in hooks:
                        numbers |= hook(step, model)
                done = True
            except Cancelled:
                pass
    replica.model.train()
    is_done, has_score, score = all_reduce_sum(runtime, (done, SCORE in numbers, numbers.get(SCORE, 0.0)))
    if not is_done:
        return {}
    state.progress.evaluated = step
    if has_score:
        _note_score(state.progress, step, score)
    return numbers


def _note_score(progress: Progress, step: int, score: float) -> None:
    if progress.best is None or score > progress.best:
        progress.best, progress.best_step, progress.stale = score, step, 0
    else:
        progress.stale += 1


def is_over(progress: Progress, early_stopping: EarlyStoppingConfig) -> bool:
    """Whether the score has not improved for so many evaluations that training ends early."""
    return 0 < early_stopping.patience <= progress.stale
