"""`vitlab data info SOURCE`: what is in a data set."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import ResultTable, show
from vitlab.data.catalog import open_source
from vitlab.data.describe import contact_sheet, describe

app = options.new_app()
