"""The tables of docs/recipes.md are those that docs/make_recipes.py writes."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_recipes", DOCS / "make_recipes.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert maker.written(page) == page, "run python docs/make_recipes.py"
