"""What verbs share that torchrun may start in several processes: one of them speaks for all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from vitlab.errors import UserError
from vitlab.runtime import Runtime, choose, process_group


@contextmanager
def one_voice(device: str) -> Iterator[Runtime]:
    """The runtime of `device`, with all processes of the run; a mistake is told by the first one alone."""
    try:
        with process_group(choose(device)) as runtime:
            yield runtime
    except UserError:
        if os.environ.get("RANK", "0") == "0":
            raise
        raise typer.Exit(2) from None
