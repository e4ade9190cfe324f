"""`vitlab serve MODEL`: a prediction API, and a page that shows what the model attends to."""

import sys
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated

import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.errors import UserError
from vitlab.runtime import choose

app = options.new_app()


@app.command()
def serve(
    model: options.ModelArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine only.")] = "127.0.0.1",
    engine: Annotated[str, typer.Option(help="What runs the model for predictions: pytorch or onnx.")] = "pytorch",
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Largest number of images per batch.")] = 16,
    device: options.DeviceOption = "auto",
) -> None:
    """Serve MODEL: a page to drop images on, and a JSON API, `POST /api/predict`, documented at /docs."""
    try:
        from vitlab.serving import server
        from vitlab.serving.limits import Limits
    except ImportError as error:
        raise UserError(f'vitlab serve needs {error.name}: pip install "vitlab[serve]"') from None
    if engine not in ("pytorch", "onnx"):
        raise UserError(f"unknown engine '{engine}': use pytorch or onnx")
    limits = replace(Limits(), batch=batch)
    listener = server.listen(host, port)
    served = server.make_served_app(
        weights.load_model(model), choose(device), name=PurePath(model).name, host=host,
        engine="onnx" if engine == "onnx" else "pytorch", limits=limits,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    print(f"vitlab: http://{shown}:{listener.getsockname()[1]}   press Ctrl-C to stop", file=sys.stderr, flush=True)
    server.serve(served, listener, limits)
