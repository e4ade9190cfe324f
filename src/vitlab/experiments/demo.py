"""The demo: the paper's journey in small, on the bundled images.

Pretrain upstream, few-shot on frozen features downstream, fine-tune downstream at a higher resolution, draw the
inspection figures, write the report.
"""

from collections.abc import Callable
from pathlib import Path

from vitlab import files, weights
from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.datasets.catalog import open_source
from vitlab.evaluation import fewshot
from vitlab.evaluation.fewshot import fewshot_table
from vitlab.models.build import Model, build
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import Recipe
from vitlab.report.figures import draw_inspection
from vitlab.report.page import write_report
from vitlab.results import Headline, ResultTable, write_table
from vitlab.runner import ACCURACY, run
from vitlab.runtime import Runtime, choose, seeded

SHOTS = [1, 5, 10, 25]
SEEDS = 5
INSPECTED_IMAGES = 128
JOURNEY = {
    "title": "A Vision Transformer's journey in miniature",
    "lead": "A small ViT was pretrained on images of clothes, evaluated on handwritten digits with frozen features, "
    "and then fine-tuned on them at a higher resolution.",
    "order": ["upstream", "downstream"],
}

REPLACED = {
    "data.source": "the demo uses its own data sets",
    "init_from": "the demo pretrains its own weights",
    "model.name": "the demo uses its own model; run `vitlab pretrain demo-upstream --model` instead",
}


def demo(out: Path, change: Callable[[Recipe], Recipe], device: str, say: Callable[[str], None]) -> ResultTable:
    """Run the complete journey; what is finished in `out` is not done again.

    Args:
        out: gets upstream/, downstream/, figures/, results/ and report.html.
        change: applied to both recipes.
        device: as for `vitlab.run`.
        say: prints which stage comes next.

    Returns:
        The summary of all stages.
    """
    upstream, downstream = out / "upstream", out / "downstream"
    recipe = change(load_recipe("demo-upstream"))
    pretrained = run(recipe, upstream, resume=True, device=device, title="1/4 pretrain on Fashion-MNIST")
    say("2/4 few-shot on digits with frozen features")
    few = _few_shot(upstream, choose(device), recipe.seed)
    write_table(few, out / "results" / "fewshot.json")
    recipe = change(load_recipe("demo-downstream")).model_copy(update={"init_from": str(upstream)})
    finetuned = run(recipe, downstream, resume=True, device=device, title="3/4 fine-tune on digits")
    say("4/4 inspection figures and report")
    _draw_figures(upstream, open_source("fashion-mnist", "test"), choose(device), out / "figures")
    table = _summary(pretrained.results[ACCURACY], few, finetuned.results[ACCURACY])
    write_table(table, out / "results" / "summary.json")
    files.write_json(out / "journey.json", JOURNEY)
    write_report([out], out / "report.html")
    return table


def _few_shot(upstream: Path, runtime: Runtime, seed: int) -> ResultTable:
    train, test = open_source("digits", "train"), open_source("digits", "test")
    model = weights.load_model(upstream)
    with seeded(seed, "untrained"):
        untrained = build(model.config)

    def measured(evaluated: Model) -> fewshot.FewShot:
        seen = [fewshot.features_of(evaluated, source, model.preprocessing, runtime) for source in (train, test)]
        return fewshot.evaluate(seen[0], seen[1], train.classes, SHOTS, seeds=SEEDS)

    pixels = [fewshot.pixels_of(source, model.preprocessing) for source in (train, test)]
    results = {
        "pretrained ViT": measured(model),
        "raw pixels": fewshot.evaluate(pixels[0], pixels[1], train.classes, SHOTS, seeds=SEEDS),
        "untrained ViT": measured(untrained),
    }
    return fewshot_table(results, "digits", SHOTS, SEEDS)


def _draw_figures(upstream: Path, source: Source, runtime: Runtime, out: Path) -> None:
    model = weights.load_model(upstream)
    model.eval().to(runtime.device)
    batch = next(iter(loader.evaluation_batches(source, model.preprocessing, batch_size=INSPECTED_IMAGES)))
    inputs_BCHW = loader.normalise(batch.images_BHWC, model.preprocessing, runtime.device)
    labels = batch.labels_B.tolist()
    names = [source.classes[label] for label in labels]
    draw_inspection(model, batch.images_BHWC.numpy(), inputs_BCHW, names, out, labels=labels, classes=source.classes)


def _summary(pretrained: ResultTable, few: ResultTable, finetuned: ResultTable) -> ResultTable:
    upstream, downstream = pretrained.numbers["top1"], finetuned.numbers["top1"]
    at_five = {name: 100 * sum(result["5"]) / len(result["5"]) for name, result in few.numbers.items()}
    none = [""] * len(SHOTS)
    rows: list[list[str]] = [["pretrained on Fashion-MNIST", f"{100 * upstream:.1f}", *none]]
    for name, by_shots in few.numbers.items():
        means = [f"{100 * sum(by_shots[str(count)]) / SEEDS:.1f}" for count in SHOTS]
        rows.append([f"few-shot on digits, {name}", "", *means])
    rows.append(["fine-tuned on digits", f"{100 * downstream:.1f}", *none])
    return ResultTable(
        title="The paper's journey in miniature: accuracy on test images (%)",
        summary=_few_shot_sentence(at_five),
        columns=["stage", "all images", *(f"{count}-shot" for count in SHOTS)],
        rows=rows,
        notes=[_few_shot_sentence(at_five)],
        headline=[
            Headline("Fashion-MNIST top-1 after pretraining", f"{100 * upstream:.1f}", "%"),
            Headline("digits, 5 shots, frozen features", f"{at_five['pretrained ViT']:.1f}", "%"),
            Headline("digits top-1 after fine-tuning", f"{100 * downstream:.1f}", "%"),
        ],
        numbers={"upstream_top1": upstream, "downstream_top1": downstream, "fewshot": few.numbers},
    )


def _few_shot_sentence(at_five: dict[str, float]) -> str:
    features, pixels, untrained = (at_five[name] for name in ("pretrained ViT", "raw pixels", "untrained ViT"))
    beside = f"({features:.1f} %, beside {pixels:.1f} % with raw pixels and {untrained:.1f} % with an untrained ViT)"
    if features > max(pixels, untrained):
        return f"With 5 images per class, features learned on clothes classify digits best {beside}."
    return (
        f"With 5 images per class, features learned on clothes are not the best ones for digits {beside}. "
        "Digits of 8 x 8 pixels are centred and of one size, so raw pixels compare well, while 6,000 pictures of "
        "clothes teach a model what distinguishes clothes, and little about strokes."
    )
