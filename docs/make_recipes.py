"""Writes the tables of docs/recipes.md from the recipes and from benchmarks/results.

Usage: python docs/make_recipes.py
"""

import json
import re
from pathlib import Path

from vitlab.files import write_text
from vitlab.recipes import library, studies
from vitlab.recipes.entries import NOT_MEASURED, Entry, figure

PAGE = Path(__file__).parent / "recipes.md"
MEASURED = Path(__file__).parent.parent / "benchmarks" / "results" / "fashion_mnist.json"
TITLES = {"vitlab": "vitlab", "timm": "timm, plain PyTorch loop", "transformers": "Hugging Face Trainer"}


def main() -> None:
    """Replace what stands between the page's marks."""
    write_text(PAGE, written(PAGE.read_text(encoding="utf-8")))


def written(page: str) -> str:
    """The page with its tables replaced."""
    for mark, text in (("recipes", recipes()), ("studies", all_studies()), ("fashion-mnist", fashion_mnist())):
        pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(pattern.findall(page)) == 1, mark
        page = pattern.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def recipes() -> str:
    """A table for each family."""
    parts = []
    for family in library.FAMILIES:
        parts.append(f"\n### {family.about[0].upper()}{family.about[1:]}\n")
        rows = [_row(entry) for entry in family.entries()]
        parts.append(_table(["recipe", "length", "peak rate", "exaFLOPs", "TPUv3-core-days", "expected"], rows))
    return "\n".join(parts)


def _row(entry: Entry) -> list[str]:
    recipe = entry.recipe
    length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:g} epochs"
    costs = [None if value is None else figure(value) for value in (entry.exaflops, entry.core_days)]
    return [
        f"`{entry.name}`",
        length,
        f"{recipe.optimizer.learning_rate:g}",
        *(cost or "" for cost in costs),
        entry.expected.removesuffix(f"; {NOT_MEASURED} here"),
    ]


def all_studies() -> str:
    """Every study with the number of its runs."""
    rows = [
        [
            f"`{study.name}`",
            study.about,
            str(len(study.rows)),
            str(sum(len(row.sweep.learning_rates) + len(row.sweep.seeds) for row in study.rows)),
        ]
        for study in studies.all_studies()
    ]
    return _table(["study", "question", "rows", "runs"], rows)


def fashion_mnist() -> str:
    """What was measured so far."""
    stored = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    whole_runs = stored.get("accuracy", {})
    top1, speed = whole_runs.get("top1", {}), whole_runs.get("images_per_second", {})
    return _table(
        ["", "top-1 on the test images", "images/s"],
        [
            [title, _share(top1.get(name)), f"{speed[name]:,.0f}" if name in speed else ""]
            for name, title in TITLES.items()
        ],
    )


def _share(found: dict[str, float] | None) -> str:
    if not found or found["mean"] is None:
        return NOT_MEASURED
    deviation = "" if found["standard_deviation"] is None else f" ± {100 * found['standard_deviation']:.2f}"
    seeds = "seed" if found["seeds"] == 1 else "seeds"
    return f"{100 * found['mean']:.2f}{deviation} % ({found['seeds']} {seeds})"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
