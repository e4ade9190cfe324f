"""Numbers beside metrics.jsonl: what goes to TensorBoard and Weights & Biases."""

import builtins
import sys
import types
import warnings

import pytest

from vitlab.errors import UserError
from vitlab.recipes import library
from vitlab.recipes.schema import with_changes
from vitlab.training import loggers

RECIPE = library.load_recipe("demo-upstream")
NUMBERS = {"loss": 2.5, "test_top1": 0.25}


def _recipe(log: str):
    return with_changes(RECIPE, [f"log={log}"])


def test_nothing_is_written_unless_asked_for(tmp_path):
    with loggers.opened(_recipe("none"), tmp_path, 0) as sink:
        sink(1, NUMBERS)
    with loggers.opened(_recipe("tensorboard"), tmp_path, 0, wanted=False) as sink:
        sink(1, NUMBERS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("log", "advice"), [("tensorboard", r"vitlab\[log\]"), ("wandb", "pip install wandb")])
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, log, advice):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith(("torch.utils.tensorboard", "wandb")):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=advice), loggers.opened(_recipe(log), tmp_path, 0):
        pass


def test_tensorboard_reads_what_was_written(tmp_path):
    """Also after a resume: what was shown after the step it goes on from is dropped."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protobuf's and TensorBoard's own making
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        with loggers.opened(_recipe("tensorboard"), tmp_path, 0) as sink:
            for step in (1, 2, 3):
                sink(step, {"loss": 10.0 + step})
        with loggers.opened(_recipe("tensorboard"), tmp_path, 2) as sink:
            sink(3, {"loss": 20.0, "test_top1": 0.25})
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 11), (2, 12), (3, 20)]
    assert [event.value for event in events.Scalars("test_top1")] == [0.25]
    assert "demo-upstream" in events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()


def test_weights_and_biases_gets_the_same(tmp_path, monkeypatch):
    seen = []
    about = types.SimpleNamespace(
        log=lambda numbers, step: seen.append((step, numbers)), finish=lambda: seen.append("finished")
    )
    monkeypatch.setitem(
        sys.modules, "wandb", types.SimpleNamespace(init=lambda **given: seen.append(given["resume"]) or about)
    )
    with loggers.opened(_recipe("wandb"), tmp_path, 0) as sink:
        sink(4, NUMBERS)
    assert seen == ["allow", (4, NUMBERS), "finished"]
