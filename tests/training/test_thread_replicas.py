"""ThreadReplicas: several shares of a batch at once are the whole batch, and the same every time."""

import shutil
import threading

import pytest
import torch

from rounding import assert_same_but_for_rounding
from vitlab import create_model
from vitlab.data import loader
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.progress import Progress
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import Runtime, choose, seeded
from vitlab.training.metrics import MetricsTracker
from vitlab.training.parallel import copy_into, parallelize
from vitlab.training.run_directory import open_run, read_metrics
from vitlab.training.thread_replicas import ThreadReplicas, thread_replicas_of
from vitlab.training.trainer import Trainer

TINY = dict(patch=7, hidden=16, layers=2, mlp=16, heads=2)
CPU = choose("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _recipe(**changes: object) -> Recipe:
    base = with_changes(
        library.load_recipe("demo-upstream"), ["batch_size=36", "averaging=0", "log_every=1", "steps=6"]
    )
    return with_changes(base, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def _model(**changes: float) -> Model:
    with seeded(0, "initialisation"):
        return create_model("ViT-Ti/7", num_classes=10, image_size=28, **{"dropout": 0.0, **TINY, **changes})


def _train(path, recipe: Recipe, data: str = "digits") -> Model:
    source, model = open_source(data, "train"), _model()
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=True) as run:
        return Trainer(recipe, model, source, run, runtime=CPU, progress=Progress()).fit()


def _equal(one: Model, other: Model) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_thread_replicas_learn_what_one_learns(tmp_path, count, microbatches):
    options = dict(optimizer__kind="sgd", optimizer__learning_rate=0.05)
    one = _train(tmp_path / "one", _recipe(**options, scale__thread_replicas=1))
    several = _train(
        tmp_path / "several", _recipe(**options, scale__thread_replicas=count, scale__accumulation=microbatches)
    )
    states = (model.state_dict() for model in (several, one, _model()))
    assert_same_but_for_rounding(*states, steps=6, terms=36 * 17)  # images x tokens
    lines = zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "several"), strict=True)
    for expected, found in lines:
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found["accuracy"] == expected["accuracy"]


def test_thread_replicas_give_the_same_bits_every_time_also_when_resumed(tmp_path):
    recipe = _recipe(scale__thread_replicas=3, checkpoint__keep=3, checkpoint_every=2)
    whole = _train(tmp_path / "whole", recipe)
    assert _equal(whole, _train(tmp_path / "again", recipe))
    later = sorted((tmp_path / "again" / "checkpoints").iterdir())[1:]
    assert len(later) == 2
    for path in later:
        shutil.rmtree(path)
    assert _equal(whole, _train(tmp_path / "again", recipe))


def test_twins_have_the_models_weights_and_gradients_of_their_own():
    replica = parallelize(_model(), _recipe().scale, CPU, threads=3)
    assert replica.threads is not None
    model, *twins = replica.threads.models
    assert len(twins) == 2
    assert model is replica.model
    copy_into({name: torch.randn_like(weight) for name, weight in replica.weights.items()}, replica.weights)
    for twin in twins:
        for (name, own), (other_name, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            assert name == other_name
            assert own.data_ptr() == other.data_ptr()
            assert torch.equal(own, other)
            assert own is not other


def test_a_mistake_in_a_lane_is_told_when_all_are_done():
    replicas = ThreadReplicas(_model(), 2)
    ended = threading.Event()

    def work(model, parts):
        if parts[0] == "bad":
            raise ValueError("bad part")
        ended.set()

    for order in (["good", "bad"], ["bad", "good"]):
        ended.clear()
        with pytest.raises(ValueError, match="bad part"):
            replicas.map(work, order)
        assert ended.is_set()


@pytest.mark.usefixtures("two_threads")
def test_a_lane_has_its_share_of_the_cores():
    replicas = ThreadReplicas(_model(), 2)
    with replicas.on_own_cores():
        assert torch.get_num_threads() == 1
        assert replicas.map(lambda model, parts: torch.get_num_threads(), ["a", "b"]) == [1, 1]
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="a mistake"), replicas.on_own_cores():
        raise ValueError("a mistake")
    assert torch.get_num_threads() == 2


def test_thread_replicas_work_at_once_each_on_its_parts_in_their_order():
    replicas = ThreadReplicas(_model(), 3)
    all_at_work = threading.Barrier(3, timeout=30)

    def work(model, parts):
        all_at_work.wait()
        return parts

    assert replicas.map(work, [0, 1, 2, 3, 4, 5]) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.usefixtures("two_threads")
def test_small_models_without_dropout_go_in_lanes_by_themselves():
    assert thread_replicas_of(_recipe(), _model(), CPU) == 2
    assert thread_replicas_of(_recipe(batch_size=20), _model(), CPU) == 1
    assert thread_replicas_of(_recipe(), _model(dropout=0.1), CPU) == 1
    assert thread_replicas_of(_recipe(), create_model("ViT-S/16", image_size=224, num_classes=2), CPU) == 1
    assert thread_replicas_of(_recipe(), create_model("BiT-R50x1", image_size=32, num_classes=2), CPU) == 1
    assert thread_replicas_of(_recipe(), _model(), Runtime(torch.device("cpu"), torch.float32, rank=1, ranks=2)) == 1
    assert thread_replicas_of(_recipe(), _model(), Runtime(torch.device("cuda"), torch.bfloat16)) == 1
    assert thread_replicas_of(_recipe(), _model(drop_path=0.1), CPU) == 1
    assert thread_replicas_of(_recipe(batch_size=8), _model(), CPU) == 1
    torch.set_num_threads(8)
    assert thread_replicas_of(_recipe(batch_size=512), _model(), CPU) == 4
    torch.set_num_threads(1)
    assert thread_replicas_of(_recipe(), _model(), CPU) == 1


def test_a_number_of_lanes_is_taken_as_far_as_there_are_images():
    assert thread_replicas_of(_recipe(scale__thread_replicas=3), _model(), CPU) == 3
    assert thread_replicas_of(_recipe(scale__thread_replicas=4, batch_size=2), _model(), CPU) == 2
    assert (
        thread_replicas_of(_recipe(scale__thread_replicas=1), _model(dropout=0.1), CPU) == 1
    )  # one lane is never refused


@pytest.mark.parametrize(
    ("changes", "random", "words"),
    [
        ({"scale__compile": "blocks"}, {}, "scale.compile"),
        ({"scale__recompute": "true"}, {}, "scale.recompute"),
        ({}, {"dropout": 0.1}, "dropout"),
        ({}, {"drop_path": 0.1}, "stochastic depth"),
    ],
)
def test_thread_replicas_that_cannot_be_are_refused_in_a_line(changes, random, words):
    with pytest.raises(UserError, match=rf"scale\.thread_replicas=2: .*{words}"):
        thread_replicas_of(_recipe(scale__thread_replicas=2, **changes), _model(**random), CPU)


@pytest.mark.parametrize(
    ("data", "lanes", "workers", "augmentation", "expected"),
    [
        ("fashion-mnist", 2, None, {}, 0),
        ("fashion-mnist", 1, None, {}, None),
        ("fashion-mnist", 2, 3, {}, 3),
        ("fashion-mnist", 2, None, {"augmentation__randaugment_layers": 2}, None),
        ("digits", 2, None, {}, 0),
    ],
)
def test_light_images_are_made_by_the_thread_that_trains_in_lanes(
    tmp_path, monkeypatch, data, lanes, workers, augmentation, expected
):
    training_batches, seen = loader.training_batches, []

    def watched(*given, workers, **named):
        seen.append(workers)
        yield from training_batches(*given, workers=0, **named)

    monkeypatch.setattr(loader, "training_batches", watched)
    options = {} if workers is None else {"data__workers": workers}
    _train(tmp_path / "run", _recipe(steps=1, scale__thread_replicas=lanes, **options, **augmentation), data)
    assert seen == [expected]


@pytest.mark.parametrize(("workers", "said"), [(0, []), (1, ["more cores"])])
def test_who_has_no_decoding_threads_is_not_told_to_give_them_cores(tmp_path, monkeypatch, workers, said):
    told = []
    monkeypatch.setattr(MetricsTracker, "advice", lambda meter: "more cores")
    monkeypatch.setattr(Progress, "print", lambda progress, line: told.append(line))
    _train(tmp_path / "run", _recipe(steps=1, data__workers=workers))
    assert told == said
