"""The page about scale says what the arithmetic says, and its commands name what there is."""

import importlib.util
import re
from pathlib import Path

from vitlab.recipes.schema import key_paths

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "scale.md").read_text()


def test_the_table_is_what_the_script_makes():
    spec = importlib.util.spec_from_file_location("make_scale", DOCS / "make_scale.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page_with(PAGE, script.table()) == PAGE


def test_every_key_that_is_named_is_one():
    named = set(re.findall(r"`(\w+\.\w+)`", PAGE))
    assert {"scale.parallel", "checkpoint.keep"} <= named
    assert named <= set(key_paths())
