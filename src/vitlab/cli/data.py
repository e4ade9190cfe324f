"""`vitlab data info SOURCE`: what is in a data set."""

import io
from pathlib import Path
from typing import Annotated

import typer

from vitlab import files
from vitlab.cli import options
from vitlab.cli.output import ResultTable, show
from vitlab.data.catalog import names, open_source
from vitlab.data.describe import contact_sheet, describe

app = options.new_app()


@app.callback(invoke_without_command=True)
def list_sources(context: typer.Context, as_json: options.JsonOption = False) -> None:
    """The data sets that have a name; a folder of images or tar shards work as well."""
    if context.invoked_subcommand is not None:
        return
    notes = ["Any folder with train/CLASS/*.jpg and val/CLASS/*.jpg, or with CLASS/*.jpg, is a data set too."]
    show(ResultTable("Data sets", ["name"], [[name] for name in names()], notes=notes), as_json=as_json)


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A name, an image folder, or tar shards.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw some images of every class into this PNG.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Decode every image instead of a thousand of each part.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Count the images of SOURCE by class, measure their sizes, and find broken ones."""
    parts = {"train": open_source(source, "train"), "test": open_source(source, "test")}
    found = {part: describe(opened, len(opened) if every else 1000) for part, opened in parts.items()}
    rows: list[list[str | int]] = [["images", *(found[part]["images"] for part in parts)]]
    rows += [
        [f"class {name}", *(found[part]["classes"].get(name, 0) for part in parts)] for name in parts["train"].classes
    ]
    sizes = [found[part]["sizes"] for part in parts]
    rows.append(["smallest height x width", *("" if size is None else _by(size["smallest"]) for size in sizes)])
    rows.append(["median height x width", *("" if size is None else _by(size["median"]) for size in sizes)])
    rows.append(["largest height x width", *("" if size is None else _by(size["largest"]) for size in sizes)])
    rows.append(["broken images", *(f"{len(found[part]['broken'])} of {found[part]['checked']}" for part in parts)])
    notes = [f"broken: {error}" for part in parts for error in found[part]["broken"]]
    show(ResultTable(f"Data set {source}", ["", *parts], rows, notes=notes, numbers=dict(found)), as_json=as_json)
    if sheet is not None:
        picture = io.BytesIO()
        contact_sheet(parts["train"]).save(picture, format="PNG")
        files.write_bytes(sheet, picture.getvalue())
        typer.echo(str(sheet), err=as_json)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
