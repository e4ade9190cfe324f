"""The public surface is closed, typed as it runs, and light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vitlab
from vitlab.evaluation.fewshot import solve
from vitlab.recipes import cost, zoo

STUB = Path(vitlab.__file__).with_suffix(".pyi")


def test_all_is_sorted_and_everything_in_it_is_there():
    assert vitlab.__all__ == sorted(vitlab.__all__)
    assert all(getattr(vitlab, name) is not None for name in vitlab.__all__)


def test_the_stub_says_what_runs():
    names = [node.names[0].asname for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert sorted(names) == vitlab.__all__


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="create_modle"):
        _ = vitlab.create_modle


@pytest.mark.parametrize("code", ["import vitlab", "from vitlab.cli.main import main; main(['--help'])"])
def test_import_and_help_do_not_wait_for_heavy_packages(code):
    heavy = "{'torch', 'numpy', 'pydantic', 'matplotlib', 'PIL'}"
    check = f"{code}\nimport sys\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_the_promised_names_are_there():
    for promised in (
        vitlab.inspection.embedding_filters,
        vitlab.inspection.position_similarity,
        vitlab.inspection.attention_maps,
        vitlab.inspection.attention_distance,
        vitlab.inspection.attention_rollout,
        vitlab.models.ViTConfig,
        vitlab.models.ResNetConfig,
        vitlab.models.ResNetStem,
        vitlab.evaluation.fewshot.solve,
        vitlab.recipes.zoo.get,
        vitlab.recipes.cost.parameters,
        cost.flops,
        cost.exaflops,
        cost.tpu_v3_core_days,
        zoo.names,
        solve,
    ):
        assert callable(promised)


def test_the_first_line_people_try():
    model = vitlab.create_model("ViT-B/16", num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_806_346
