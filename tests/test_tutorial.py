"""docs/tutorial.ipynb: its cells run, its outputs are there, and it is what docs/make_tutorial.py writes."""

import importlib.util
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_tutorial", DOCS / "make_tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_it_is_what_the_script_writes(script, cells):
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == script.CELLS


def test_every_output_is_there_and_no_error(cells):
    assert NOTEBOOK.stat().st_size < 1_000_000
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert "/home" not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.long
def test_its_cells_run(script, cells):
    """In order, in one namespace; what they print first is what the notebook shows, but for what was measured."""
    names = {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        found = script.outputs_of("".join(cell["source"]), names, cell["execution_count"])
        assert [output["output_type"] for output in found] == [output["output_type"] for output in cell["outputs"]]
        if not any(word in "".join(cell["source"]) for word in ("classifier", "fewshot", "small", "largest")):
            assert found == cell["outputs"]
    assert names["classifier"].score(names["test_images"], names["test_labels"]) > 0.6
    assert names["classifier"].n_images_ == 2400
    assert float((names["by_hand"] - names["by_vitlab"]).abs().max()) < 1e-5
