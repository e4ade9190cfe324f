"""A small journey on disk, with everything that a report shows."""

import json

import pytest

from report.small_runs import draw_figures, write_run, write_table


@pytest.fixture(scope="session")
def journey(tmp_path_factory):
    """Read only."""
    path = tmp_path_factory.mktemp("reports") / "small-journey"
    write_run(path / "downstream", steps=40)
    write_run(path / "upstream", steps=2000)
    write_table(
        path / "results" / "fewshot.json",
        "Few-shot on digits",
        ["features", *(f"{shots} shots" for shots in (1, 2, 5, 10, 25, 50, 100))],
        [["pretrained ViT", *(f"{50 + shots}.1 ± 0.{shots}" for shots in range(7))]],
        summary="Frozen features carry over.",
        notes=["Mean and standard deviation over 5 draws."],
        headline=[
            {"label": "top-1 after fine-tuning", "value": "96.9", "unit": "%"},
            {"label": "images", "value": 70000},
        ],
        numbers={"fewshot": {"5": [0.781]}},
    )
    draw_figures(path / "figures")
    (path / "journey.json").write_text(
        json.dumps(
            {"title": "A journey in small", "lead": "From clothes to digits.", "order": ["upstream", "downstream"]}
        )
    )
    return path
