"""Run directories: one process at a time, the same recipe on resume, nothing left of a run that never began."""

import errno
import subprocess
import sys

import pytest

from vitlab.errors import UserError
from vitlab.recipes import library
from vitlab.recipes.schema import to_toml, with_changes
from vitlab.training.run_directory import one_line_write_errors, open_run, read_metrics

RECIPE = library.load_recipe("finetune")


def _open(path, **changes):
    given = {"recipe": RECIPE, "data": "abc", "environment": {"device": "cpu"}, "resume": False} | changes
    return open_run(path, given["recipe"], data=given["data"], environment=given["environment"], resume=given["resume"])


def test_a_second_run_needs_resume(tmp_path):
    with _open(tmp_path / "run") as run:
        run.log(step=1, loss=2.0)
    with pytest.raises(UserError, match="--resume"), _open(tmp_path / "run"):
        pass
    with _open(tmp_path / "run", resume=True) as run:
        assert read_metrics(run.path) == [{"step": 1, "loss": 2.0}]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a run directory"), _open(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(UserError, match="in the way"), _open(tmp_path / "run"):
        pass


def test_a_changed_recipe_or_changed_images_are_not_resumed(tmp_path):
    with _open(tmp_path / "run"):
        pass
    other = RECIPE.model_copy(update={"batch_size": 7})
    with pytest.raises(UserError, match="batch_size was 32 and is 7 now"):
        with _open(tmp_path / "run", recipe=other, resume=True):
            pass
    with pytest.raises(UserError, match="images changed"), _open(tmp_path / "run", data="other", resume=True):
        pass


def test_a_run_in_use_is_refused(tmp_path):
    """The other process is real: a lock of this process would not show whether another one is kept out."""
    code = (
        "import sys; from pathlib import Path; from vitlab.recipes import library\n"
        "from vitlab.training.run_directory import open_run\n"
        "with open_run(Path(sys.argv[1]), library.load_recipe('finetune'), data='abc', environment={}, resume=True):\n"
        "    print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(UserError, match="in use"), _open(tmp_path / "run", resume=True):
            pass
        other.stdin.close()
    with _open(tmp_path / "run", resume=True):
        pass


def test_a_users_mistake_before_anything_was_saved_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="unreadable"), _open(tmp_path / "run"):
        raise UserError("unreadable image")
    assert not (tmp_path / "run").exists()


def test_a_mistake_after_a_checkpoint_keeps_the_run(tmp_path):
    with pytest.raises(UserError, match="unreadable"), _open(tmp_path / "run") as run:
        (run.checkpoints / "step-00000001").mkdir(parents=True)
        raise UserError("unreadable image")
    assert (tmp_path / "run" / "recipe.toml").exists()


def test_resuming_forgets_what_will_be_written_again_and_a_torn_line(tmp_path):
    with _open(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.log(step=step, loss=1.0)
        with (run.path / "metrics.jsonl").open("a") as lines:
            lines.write('{"step": 4, "lo')
        run.forget_after(2)
        assert [line["step"] for line in read_metrics(run.path)] == [1, 2]


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"), _open(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "scale.accumulation=4",
        "scale.accumulation=auto",
        "scale.parallel=fsdp",
        "checkpoint.keep=5",
        "scale.recompute=true",
        "scale.compile=blocks",
        "scale.thread_replicas=2",
    ],
)
def test_how_a_run_is_carried_out_may_change(tmp_path, change):
    with _open(tmp_path / "run"):
        pass
    with _open(tmp_path / "run", recipe=with_changes(RECIPE, [change]), resume=True):
        pass


def test_a_run_of_an_earlier_version_goes_on(tmp_path, capsys):
    """Its recipe.toml has keys that were renamed since, and early stopping that had no effect."""
    with _open(tmp_path / "run") as run:
        stored = to_toml(RECIPE)
        for section in ("validation", "early_stopping", "checkpoint"):
            before, _, rest = stored.partition(f"[{section}]\n")
            stored = before + rest.partition("\n\n")[2]
        old = 'keep = 2\nvalidation = 0.0\npatience = 3\nlanes = "auto"'
        (run.path / "recipe.toml").write_text(stored.replace('thread_replicas = "auto"', old))
    for kept in (RECIPE, with_changes(RECIPE, ["checkpoint.keep=5"])):
        with _open(tmp_path / "run", recipe=kept, resume=True):
            pass
    other = with_changes(RECIPE, ["validation.share=0.1"])
    with pytest.raises(UserError, match=r"validation.share was 0.0 and is 0.1 now"):
        with _open(tmp_path / "run", recipe=other, resume=True):
            pass
    assert capsys.readouterr().err == ""


def test_precision_may_not_change(tmp_path):
    with _open(tmp_path / "run"):
        pass
    other = with_changes(RECIPE, ["scale.precision=bfloat16"])
    with pytest.raises(UserError, match=r"scale.precision was 'auto' and is 'bfloat16' now"):
        with _open(tmp_path / "run", recipe=other, resume=True):
            pass


def test_what_a_killed_process_left_of_a_folder_is_taken_over(tmp_path):
    (tmp_path / "run" / ".model.x7.part").mkdir(parents=True)
    for name in ("run.lock", "environment.json", ".recipe.toml.a1.part"):
        (tmp_path / "run" / name).write_text("")
    with _open(tmp_path / "run") as run:
        names = {path.name for path in run.path.iterdir()}
    assert names == {"run.lock", "environment.json", "recipe.toml"}


def test_someone_elses_hidden_file_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".notes.part").write_text("x")
    with pytest.raises(UserError, match="not a run directory"), _open(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / ".notes.part").exists()


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write to .*No space left on device \(.* MB are free\)"):
        with one_line_write_errors(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
