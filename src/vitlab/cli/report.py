"""`vitlab report RUN...`: one page with the results, the training curves and the figures."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.report.page import write_report

app = options.new_app()


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or a folder of them.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; by default report.html in the first folder.")] = None,
) -> None:
    """Write one self-contained HTML page about one or more runs."""
    print(write_report(runs, out or runs[0] / "report.html"))
