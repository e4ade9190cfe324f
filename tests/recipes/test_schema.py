"""Recipes: what goes out as TOML comes back equal, and what a recipe does not have is refused in one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.errors import UserError
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, from_toml, key_paths, to_toml, with_changes


@pytest.mark.parametrize("name", library.names())
def test_every_recipe_survives_toml(name):
    recipe = library.find(name)
    assert from_toml(to_toml(recipe), "there") == recipe


@pytest.mark.parametrize("name", library.names())
def test_every_recipe_says_its_command_and_what_to_expect(name):
    text = library.description(name)
    assert "Command: `vitlab" in text
    assert "not measured" in text or "benchmarks/results" in text


def test_a_recipe_file_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(library.find("finetune")).replace("steps = 300", "steps = 7"))
    assert library.find(str(path)).steps == 7


def test_changes_are_applied_and_typed():
    recipe = with_changes(
        library.find("demo-upstream"),
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
        with_changes(library.find("finetune"), [change])
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
        library.find(str(path))
    assert expected in str(error.value)
    assert "bad.toml" in str(error.value)
    assert "\n" not in " ".join(str(error.value).split())


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean demo-upstream"):
        library.find("demo-upsteam")


def test_a_huge_recipe_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * (library.LARGEST_FILE + 1))
    with pytest.raises(UserError, match="bytes"):
        library.find(str(path))


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
        changed = with_changes(library.find("finetune"), [f"{path}={value}"])
    except UserError as error:
        assert str(error)
    else:
        assert from_toml(to_toml(changed), "there") == changed
