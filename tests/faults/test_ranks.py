"""Two processes are one run: they learn what one would, stop together, and tell a mistake once."""

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from faults.farm import fingerprint
from faults.trial import start
from rounding import assert_same_but_for_rounding
from vitlab.training import checkpoint_files

WAYS = ["ddp", "fsdp"]
SGD = ["optimizer.kind=sgd", "optimizer.learning_rate=0.05"]
LONG = ["steps=50", "checkpoint_every=20", "log_every=50", "evaluate_every=0"]


def _log(path: Path) -> list[str]:
    return (path.parent / f"{path.name}.log").read_text().splitlines()


def _assert_same_model(found: Path, expected: Path, steps: int) -> None:
    weights = (load_file(path / "model" / "model.safetensors") for path in (found, expected))
    assert_same_but_for_rounding(*weights, start().state_dict(), steps=steps, terms=12 * 17)  # images x tokens


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optimizer", [SGD, []], ids=["sgd", "adamw"])
def test_two_processes_learn_what_one_does(farm, folder, way, optimizer):
    changes = [*LONG, *optimizer]
    assert farm.run(folder / "one", changes=changes, dropout=0).codes == [0]
    assert farm.run(folder / "two", ranks=2, changes=[*changes, f"scale.parallel={way}"], dropout=0).codes == [0, 0]
    _assert_same_model(folder / "two", folder / "one", steps=50)


@pytest.mark.parametrize("way", WAYS)
def test_accumulation_on_two_processes(farm, folder, way):
    changes = [*LONG, *SGD]
    assert farm.run(folder / "one", changes=changes, dropout=0).codes == [0]
    parts = [*changes, f"scale.parallel={way}", "scale.accumulation=4"]
    outcome = farm.run(folder / "two", ranks=2, changes=parts, dropout=0)
    assert outcome.codes == [0, 0], _log(folder / "two")
    _assert_same_model(folder / "two", folder / "one", steps=50)


@pytest.mark.parametrize("fault", ["rank 1 loses an image", "the factor of the processes is forgotten"])
@pytest.mark.parametrize("optimizer", [SGD, []], ids=["sgd", "adamw"])
def test_a_mistake_is_further_from_one_process_than_rounding(farm, folder, optimizer, fault):
    """The laws above can fail: one image of one step in fifty is enough."""
    changes = [*LONG, *optimizer]
    assert farm.run(folder / "one", changes=changes, dropout=0).codes == [0]
    order = dict(ranks=2, changes=[*changes, "scale.parallel=ddp"], dropout=0)
    assert farm.run(folder / "two", faults=[fault], **order).codes == [0, 0], _log(folder / "two")
    with pytest.raises(AssertionError, match="where rounding explains"):
        _assert_same_model(folder / "two", folder / "one", steps=50)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_two_processes_mix_the_pairs_that_one_does(farm, folder, mixing):
    """One image of a pair cannot be read in the second step."""
    changes = ["steps=6", "averaging=0", *SGD, f"augmentation.{mixing}=0.5"]
    assert farm.run(folder / "one", changes=changes, dropout=0).codes == [0]
    assert farm.run(folder / "two", ranks=2, changes=changes, dropout=0).codes == [0, 0], _log(folder / "two")
    _assert_same_model(folder / "two", folder / "one", steps=6)


@pytest.mark.parametrize(("first", "then"), [("fsdp", None), (None, "fsdp"), ("fsdp", "ddp"), ("ddp", "fsdp")])
def test_a_checkpoint_is_taken_up_by_another_number_of_processes(farm, folder, first, then):
    def order(way: str | None) -> dict:
        ways = [f"scale.parallel={way}"] if way else []
        changes = [*LONG, "steps=20", "checkpoint_every=5", *ways]
        return dict(ranks=2 if way else 1, changes=changes, dropout=0)

    assert farm.run(folder / "one", **order(None)).codes == [0]
    stopped = farm.run(folder / "two", faults=["rank 0 is asked to stop"], **order(first))
    assert stopped.codes == [143] * (2 if first else 1), _log(folder / "two")
    assert farm.run(folder / "two", **order(then)).codes == [0] * (2 if then else 1), _log(folder / "two")
    _assert_same_model(folder / "two", folder / "one", steps=20)
    counts = {None: 1, "ddp": 2, "fsdp": 2}
    said = [line for line in _log(folder / "two") if "continue a checkpoint of" in line]
    assert len(said) == (counts[first] != counts[then])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(farm, folder, way, rank):
    outcome = farm.run(
        folder / "run",
        ranks=2,
        changes=[f"scale.parallel={way}"],
        agent=False,
        faults=[f"rank {rank} is asked to stop"],
    )
    assert outcome.codes == [143, 143], _log(folder / "run")
    newest = checkpoint_files.newest_first(folder / "run" / "checkpoints")[0]
    assert newest.name == "step-00000005"
    assert _log(folder / "run") == ["vitlab: stopped after step 5; --resume continues from there"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_dies_the_other_ends_at_once(farm, folder, way, rank):
    """Without an agent's help: the broken connection is enough."""
    changes = [f"scale.parallel={way}"]
    outcome = farm.run(folder / "run", ranks=2, changes=changes, agent=False, faults=[f"rank {rank} dies"])
    assert outcome.codes[rank] == -signal.SIGKILL
    assert outcome.codes[1 - rank] == 1
    assert outcome.seconds[1 - rank] - outcome.seconds[rank] < 30
    log = _log(folder / "run")
    assert len([line for line in log if line.startswith("vitlab:")]) == (rank == 1), log
    assert not any("Traceback" in line for line in log), log


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_bad_image_stops_all_with_one_message(farm, folder, ranks):
    outcome = farm.run(folder / "run", ranks=ranks, agent=False, faults=["bad image on the last rank"])
    assert outcome.codes == [2] * ranks
    assert _log(folder / "run") == ["vitlab: cat.jpg is truncated; remove it, or use --bad-images skip"]


@pytest.mark.parametrize(("ranks", "way"), [(1, "none"), (2, "ddp"), (2, "fsdp")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_all_before_the_update(farm, folder, ranks, way, value):
    changes = [f"scale.parallel={way}"]
    faults = [f"{value} on the last rank"]
    outcome = farm.run(folder / "run", ranks=ranks, changes=changes, agent=False, faults=faults)
    assert outcome.codes == [3] * ranks, _log(folder / "run")
    [line] = _log(folder / "run")
    assert line.startswith(f"vitlab: step 3: loss {value}; images ")
    assert checkpoint_files.newest_first(folder / "run" / "checkpoints")[0].name == "step-00000002"
    # What is on the disk is good to go on from: the run ends as if nothing had been wrong.
    assert farm.run(folder / "run", ranks=ranks, changes=changes).codes == [0] * ranks


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("phase", ["stop in an endless evaluation", "stop while saving"])
def test_a_signal_is_heard_in_every_phase(farm, folder, ranks, phase):
    outcome = farm.run(folder / "run", ranks=ranks, faults=[phase], changes=["evaluate_every=2"])
    assert outcome.codes == [143] * ranks, _log(folder / "run")
    assert max(outcome.seconds) < 30
    assert farm.run(folder / "run", ranks=ranks).codes == [2] * ranks  # another recipe
    assert farm.run(folder / "run", ranks=ranks, changes=["evaluate_every=2"]).codes == [0] * ranks


@pytest.mark.parametrize(("ranks", "way"), [(1, "none"), (2, "ddp"), (2, "fsdp")])
def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(farm, folder, ranks, way):
    changes = [f"scale.parallel={way}"]
    outcome = farm.run(folder / "run", ranks=ranks, changes=changes, agent=False, faults=["disk is full"])
    assert outcome.codes == [2] * ranks, _log(folder / "run")
    [line] = _log(folder / "run")
    assert "No space left on device" in line
    assert "MB are free" in line
    checkpoints = folder / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    assert farm.run(folder / "run", ranks=ranks, changes=changes).codes == [0] * ranks


def test_three_processes_resume_to_the_bit(farm, folder):
    """Of three numbers the sum depends on the order, and DDP changes its order after the first step it makes."""
    order = dict(ranks=3, changes=["scale.parallel=ddp"])
    assert farm.run(folder / "through", **order).codes == [0, 0, 0], _log(folder / "through")
    assert farm.run(folder / "run", faults=["rank 1 is asked to stop"], **order).codes == [143, 143, 143]
    assert farm.run(folder / "run", **order).codes == [0, 0, 0]
    assert fingerprint(folder / "run") == fingerprint(folder / "through")
