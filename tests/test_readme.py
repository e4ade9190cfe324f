"""README.md and the pages in docs are true: their commands run, and what they name is there."""

import re
import shlex
from pathlib import Path

import pytest

from vitlab.cli.main import VERBS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
# Verbs that train make a few steps here; everything else of a command is run as it is written.
SHORTER = {"demo": ["--set", "steps=3"], "pretrain": ["--steps", "2"], "finetune": ["--steps", "2"]}


def _commands(text: str) -> list[str]:
    """The lines that follow a prompt in a console block."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_readme_has_commands_and_shows_the_most_useful_verbs():
    verbs = {command.split()[1] for command in _commands(README) if command.startswith("vitlab ")}
    assert {"finetune", "predict", "evaluate", "fewshot", "inspect", "data"} <= verbs <= set(VERBS)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_command_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """In order, in one folder, as a reader would: later commands use what earlier ones made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for command in _commands(README):
        program, *words = shlex.split(command)
        if program == "make":
            assert set(words) <= targets
            words = ["demo"] if words == ["demo"] else []
        elif program == "source":
            continue
        else:
            assert program == "vitlab", f"README has a command that no test knows: {command}"
        if words:
            assert main([*words, *SHORTER.get(words[0], [])]) == 0, command
            capsys.readouterr()
    assert (tmp_path / "runs" / "demo" / "report.html").exists()


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
