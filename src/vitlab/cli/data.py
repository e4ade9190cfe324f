"""`vitlab data info SOURCE`: what is in a data set; `vitlab data pack SOURCE OUT`: writes it as fast tar shards."""

import io
from pathlib import Path
from typing import Annotated

import typer

from vitlab import files
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.data.sources import Source, TrainOrTest
from vitlab.datasets.catalog import describe_names, open_source
from vitlab.datasets.describe import Quantile, contact_sheet, describe
from vitlab.errors import UserError
from vitlab.progress import show_progress
from vitlab.results import Cell, ResultTable
from vitlab.shards.packing import Encoding, pack

app = options.new_app()

SPLITS: tuple[TrainOrTest, ...] = ("train", "test")
MOST_CLASSES = 30  # up to so many are listed one by one
QUANTILES: tuple[tuple[str, Quantile], ...] = (
    ("smallest", "smallest"), ("5 % quantile of", "five_percent"), ("median", "median"),
    ("95 % quantile of", "ninety_five_percent"), ("largest", "largest"),
)  # fmt: skip


@app.callback(invoke_without_command=True)
def list_sources(context: typer.Context, as_json: options.JsonOption = False) -> None:
    """The data sets that have a name; a folder of images or tar shards work as well."""
    if context.invoked_subcommand is not None:
        return
    notes = [
        "Any folder with train/CLASS/*.jpg and val/CLASS/*.jpg, or with CLASS/*.jpg, is a data set too.",
        "A named set is looked for in the folder of --data NAME=FOLDER, in $VITLAB_DATA/NAME, and on the hub.",
    ]
    rows: list[list[Cell]] = [[name, classes, what, needs] for name, what, classes, needs in describe_names()]
    columns = ["name", "classes", "what it is", "needs"]
    show(ResultTable("Data sets", columns, rows, notes=notes), as_json=as_json, text_columns=columns[2:])


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A name, an image folder, or tar shards.")],
    sheet: Annotated[Path | None, typer.Option(help="Write some images of every class into this PNG.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Decode every image instead of a thousand per split.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Count the images of SOURCE by class, measure their sizes, and find broken ones."""
    sides, notes = _sides(source)
    found = {side: describe(opened, len(opened) if every else 1000) for side, opened in sides.items()}
    rows: list[list[str | int]] = [["images", *(found[side]["images"] for side in sides)]]
    counts = {side: found[side]["classes"] for side in sides}
    classes = next(iter(sides.values())).classes
    if len(classes) <= MOST_CLASSES:
        rows += [[f"class {name}", *(counts[side].get(name, 0) for side in sides)] for name in classes]
    else:
        rows += [
            ["classes", *(len(counts[side]) for side in sides)],
            ["fewest images per class", *(min(counts[side].values()) for side in sides)],
            ["most images per class", *(max(counts[side].values()) for side in sides)],
        ]
    sizes = [found[side]["sizes"] for side in sides]
    rows += [
        [f"{what} height x width", *("" if size is None else "{} x {}".format(*size[key]) for size in sizes)]
        for what, key in QUANTILES
    ]
    rows.append(["broken images", *(f"{len(found[side]['broken'])} of {found[side]['checked']}" for side in sides)])
    notes += [f"broken: {error}" for side in sides for error in found[side]["broken"]]
    show(ResultTable(f"Data set {source}", ["", *sides], rows, notes=notes, numbers=dict(found)), as_json=as_json)
    if sheet is not None:
        picture = io.BytesIO()
        contact_sheet(next(iter(sides.values()))).save(picture, format="PNG")
        files.write_bytes(sheet, picture.getvalue())
        typer.echo(str(sheet), err=as_json)


def _sides(source: str) -> tuple[dict[str, Source], list[str]]:
    """The sides that the data set has, and why one is missing: some of the named sets are for testing only."""
    sides: dict[str, Source] = {}
    notes: list[str] = []
    for split in SPLITS:
        try:
            sides[split] = open_source(source, split)
        except UserError as error:
            if split == "test" and not sides:
                raise
            notes.append(str(error))
    return sides, notes


@app.command("pack")
def pack_shards(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A name, an image folder, or tar shards.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the shards, itself a SOURCE then.")],
    size: Annotated[int | None, typer.Option(min=8, help="Resize larger images to this shorter side (pixels).")] = None,
    encoding: Annotated[
        Encoding | None,
        typer.Option(
            help="same: copy the bytes. jpeg: quality 95, the default with --size. raw: pixels, ten times as large "
            "and several times as fast to read."
        ),
    ] = None,
    bad_images: options.BadImagesOption = "refuse",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one per processor if not given.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write both sides of SOURCE as tar shards with an index, which are read at random and fast."""
    kind: Encoding = encoding or ("same" if size is None else "jpeg")
    rows: list[list[str | int]] = []
    skipped: list[str] = []
    for split in SPLITS:
        opened = open_source(source, split)
        with show_progress(f"packing {split}", len(opened)) as shown:
            packed = pack(
                opened, out, split,
                size=size, encoding=kind, workers=workers, bad_images=bad_images, progress=shown.update,
            )  # fmt: skip
        rows.append([split, packed.images, len(packed.shards), f"{packed.size / 2**20:,.1f}", len(packed.skipped)])
        skipped += packed.skipped
    notes = [*(f"left out: {reason}" for reason in skipped[:20]), f"Use it with --data {out}"]
    show(
        ResultTable(f"Packed {source}", ["split", "images", "shards", "MiB", "left out"], rows, notes=notes),
        as_json=as_json,
    )
