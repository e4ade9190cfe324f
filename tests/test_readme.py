"""README.md and the pages in docs are true: their commands and Python examples run, and what they name exists."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

import vitlab
from vitlab.cli.main import VERBS, main
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runner import Run
from vitlab.runner import run as full_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
# Verbs that train make a few steps here; everything else of a command is run as it is written.
SHORTER = {"demo": ["--set", "steps=3"], "pretrain": ["--steps", "2"], "finetune": ["--steps", "2"]}


def _blocks(text: str) -> list[tuple[str, str]]:
    """The console and Python blocks, in order, each with its kind."""
    return re.findall(r"```(console|python)\n(.*?)```", text, flags=re.DOTALL)


def _commands(text: str) -> list[str]:
    """The lines that follow a prompt in a console block."""
    blocks = [block for kind, block in _blocks(text) if kind == "console"]
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def _short_run(recipe, *arguments, **named):
    """`vitlab.run` with a few steps, as commands that train have them here."""
    recipe = recipe if isinstance(recipe, Recipe) else vitlab.load_recipe(recipe)
    return full_run(with_changes(recipe, ["steps=2"]), *arguments, **named)


def test_readme_has_commands_and_shows_the_most_useful_verbs():
    verbs = {command.split()[1] for command in _commands(README) if command.startswith("vitlab ")}
    assert {"finetune", "predict", "evaluate", "fewshot", "inspect", "data"} <= verbs <= set(VERBS)


def test_readme_shows_every_way_to_use_it_from_python_and_what_a_run_has():
    code = "".join(block for kind, block in _blocks(README) if kind == "python")
    public = set(vitlab.__all__) - {"evaluation", "inspection", "list_models", "models", "recipes", "Recipe", "Run"}
    assert public == {name for name in vitlab.__all__ if f"vitlab.{name}(" in code}
    for field in dataclasses.fields(Run):
        assert f"`{field.name}`" in README


@pytest.mark.long
@pytest.mark.timeout(600)
def test_everything_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    """In order, in one folder, as a reader would: later commands use what earlier ones made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(vars(vitlab), "run", _short_run)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names = {}
    for kind, block in _blocks(README):
        if kind == "python":
            exec(compile(block, "README.md", "exec"), names)
        else:
            for line in block.splitlines():
                if line.startswith("$ "):
                    _run_command(line[2:])
        capsys.readouterr()
    assert (tmp_path / "runs" / "demo" / "report.html").exists()
    assert names["digits"].model.config.num_classes == 10
    assert names["digits"].results["accuracy"].numbers["images"] == 500
    assert names["run"].metrics[-1]["step"] == 2
    assert len(names["classifier"].classes_) == 10


def _run_command(command):
    program, *words = shlex.split(command)
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        assert set(words) <= targets
        words = ["demo"] if words == ["demo"] else []
    else:
        assert program == "vitlab", f"README has a command that no test knows: {command}"
    if words:
        assert main([*words, *SHORTER.get(words[0], [])]) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()) + re.findall(r'src="([^"]+)"', page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_map_of_the_source_is_complete():
    """Every folder and file at the top of the package is in the map, and the map names nothing else."""
    block = re.search(r"```text\nsrc/vitlab/\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    named = {line.split()[0].rstrip("/") for line in block[1].splitlines() if re.match(r"  \S", line)}
    package = ROOT / "src" / "vitlab"
    there = {path.name for path in package.iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert named == there
