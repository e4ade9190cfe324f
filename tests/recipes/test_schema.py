"""Recipes: what goes out as TOML comes back equal, and what a recipe does not have is refused in one line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.errors import UserError
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, from_stored_toml, from_toml, key_paths, to_toml, with_changes
from vitlab.recipes.validation import RENAMED


@pytest.mark.parametrize("name", library.names())
def test_every_recipe_survives_toml(name):
    recipe = library.load_recipe(name)
    assert from_toml(to_toml(recipe), "there") == recipe


@pytest.mark.parametrize("name", library.names())
def test_every_recipe_says_its_command_and_what_to_expect(name):
    text = library.entry(name).description()
    assert "Command: `vitlab" in text
    assert "not measured" in text or "benchmarks/results" in text


def test_a_recipe_file_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(library.load_recipe("finetune")).replace("steps = 300", "steps = 7"))
    assert library.load_recipe(str(path)).steps == 7
    assert library.load_recipe(path).steps == 7


def test_a_path_is_a_file_even_if_it_is_called_like_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot read recipe finetune: No such file"):
        library.load_recipe(Path("finetune"))
    Path("finetune").write_text("steps = 3")
    assert library.load_recipe(Path("finetune")).steps == 3
    assert library.load_recipe("finetune").steps == 300
    with pytest.raises(UserError, match=r"cannot read recipe \.: Is a directory"):
        library.load_recipe(Path())


def test_changes_are_applied_and_typed():
    recipe = with_changes(
        library.load_recipe("demo-upstream"),
        [
            "optimizer.learning_rate=1e-4",
            "model.options.layers=2",
            "data.source=photos",
            "steps=5",
            "augmentation.flip=false",
        ],
    )
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.model.options["layers"] == 2
    assert recipe.data.source == "photos"
    assert (recipe.steps, recipe.epochs) == (5, None)
    assert recipe.augmentation.flip is False


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("optimizer.learning_rat=1", "optimizer.learning_rate"),
        ("batchsize=1", "batch_size"),
        ("optimizer=1", "unknown key 'optimizer'"),
        ("nonsense", "key.path=value"),
        ("batch_size=0", "batch_size"),
        ("batch_size=many", "batch_size"),
        ("optimizer.learning_rate=nan", "learning_rate"),
        ("augmentation.area=[2, 3]", "augmentation.area"),
        ("steps.more.yet=1", "unknown key"),
    ],
)
def test_wrong_changes_are_one_line_that_names_the_key(change, expected):
    with pytest.raises(UserError) as error:
        with_changes(library.load_recipe("finetune"), [change])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps = 5\nsteps = 6", "not valid TOML"),
        ("steps = 5\nbach_size = 6", "batch_size"),
        ("", "exactly one of steps and epochs"),
        ("steps = 5\nepochs = 1.0", "exactly one of steps and epochs"),
        ("steps = 5\n[schedule]\ndecay = 'cosin'", "schedule.decay"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_wrong_files_are_one_line_that_names_the_file(tmp_path, text, expected):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        library.load_recipe(str(path))
    assert expected in str(error.value)
    assert "bad.toml" in str(error.value)
    assert "\n" not in " ".join(str(error.value).split())


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean demo-upstream"):
        library.load_recipe("demo-upsteam")


def test_a_huge_recipe_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * (library.LARGEST_FILE + 1))
    with pytest.raises(UserError, match="bytes"):
        library.load_recipe(str(path))


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_one_users_error(text):
    try:
        recipe = from_toml(text, "there")
    except UserError as error:
        assert str(error)
    else:
        assert isinstance(recipe, Recipe)


@settings(max_examples=300)
@given(st.sampled_from([*key_paths(), "model.options.layers", "x.y"]), st.text(max_size=20))
def test_any_change_gives_a_recipe_or_one_users_error(path, value):
    try:
        changed = with_changes(library.load_recipe("finetune"), [f"{path}={value}"])
    except UserError as error:
        assert str(error)
    else:
        assert from_toml(to_toml(changed), "there") == changed


RENAMED_VALUES = {
    "scale.keep": 5, "scale.validation": 0.2, "scale.patience": 3, "scale.lanes": 2,
}  # fmt: skip
ENOUGH = "steps = 5\nevaluate_every = 2\n"


def _value(recipe, path):
    section, key = path.split(".")
    return recipe.model_dump()[section][key]


def test_every_renamed_key_is_tried_here():
    assert RENAMED_VALUES.keys() == RENAMED.keys()
    assert set(RENAMED.values()) <= set(key_paths())
    assert not set(RENAMED) & set(key_paths())


def test_old_keys_of_a_file_are_moved_and_named_with_the_new_ones(capsys):
    lines = [f"{old.removeprefix('scale.')} = {value}" for old, value in RENAMED_VALUES.items()]
    recipe = from_toml("\n".join([ENOUGH, "[scale]", *lines]), "old.toml")
    for old, new in RENAMED.items():
        assert _value(recipe, new) == RENAMED_VALUES[old]
    told = [f"old.toml: {old} is now called {new}" for old, new in RENAMED.items()]
    assert capsys.readouterr().err.splitlines() == told


def test_old_keys_of_set_are_moved_and_named_with_the_new_ones(capsys):
    recipe = with_changes(Recipe(steps=5, evaluate_every=2), [f"{old}={v}" for old, v in RENAMED_VALUES.items()])
    for old, new in RENAMED.items():
        assert _value(recipe, new) == RENAMED_VALUES[old]
    told = [f"--set: {old} is now called {new}" for old, new in RENAMED.items()]
    assert capsys.readouterr().err.splitlines() == told


def test_other_processes_do_not_repeat_the_new_names(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert with_changes(Recipe(steps=5), ["scale.keep=5"]).checkpoint.keep == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_beside_the_new_one_is_refused(old, new):
    value, (section, key) = RENAMED_VALUES[old], new.split(".")
    old_line = f"{old.removeprefix('scale.')} = {value}"
    inside = f"[scale]\n{old_line}\n" + (f"{key} = {value}" if section == "scale" else f"[{section}]\n{key} = {value}")
    for read in (from_toml, from_stored_toml):
        with pytest.raises(UserError, match=rf"^f: {old} is now called {new}, and both are given"):
            read(f"{ENOUGH}{inside}", "f")
    with pytest.raises(UserError, match=rf"^--set: {old} is now called {new}, and both are given"):
        with_changes(Recipe(steps=5), [f"{new}={value}", f"{old}={value}"])


def test_a_wrong_value_of_an_old_key_is_one_line_that_names_the_new_one():
    with pytest.raises(UserError, match=r"^f: checkpoint\.keep: .*greater than 0"):
        from_toml("steps = 5\n[scale]\nkeep = 0", "f")
    with pytest.raises(UserError, match=r"^f: checkpoint: "):
        from_toml("steps = 5\ncheckpoint = 3\n[scale]\nkeep = 1", "f")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (["evaluate_every=2"], "set validation.share"),
        (["validation.share=0.1"], "set evaluate_every"),
    ],
)
def test_early_stopping_that_could_not_stop_is_refused(changes, cause):
    with pytest.raises(UserError, match=rf"^--set: early_stopping\.patience is 3, but .*: {cause}") as error:
        with_changes(Recipe(steps=5), [*changes, "early_stopping.patience=3"])
    assert "\n" not in str(error.value)


def test_a_stored_recipe_whose_early_stopping_had_no_effect_is_read_without_it(capsys):
    text = "steps = 5\n[scale]\npatience = 3\nkeep = 4\n"
    stored = from_stored_toml(text, "run/recipe.toml")
    assert (stored.early_stopping.patience, stored.checkpoint.keep) == (0, 4)
    assert from_stored_toml(f"{ENOUGH}[scale]\npatience = 3\nvalidation = 0.1", "f").early_stopping.patience == 3
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="validation"):
        from_toml(text, "mine.toml")
