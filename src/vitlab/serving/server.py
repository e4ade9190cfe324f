"""A model behind a socket of this machine."""

import functools
import logging
import socket
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import uvicorn

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.runtime import Runtime
from vitlab.serving.app import make_app
from vitlab.serving.connections import PatientProtocol
from vitlab.serving.engine import EngineName, make_engine
from vitlab.serving.gate import App, Gate
from vitlab.serving.limits import Limits
from vitlab.serving.looking import Looking
from vitlab.serving.memory import return_large_buffers

BACKLOG = 128


def make_gated_app(
    model: Model,
    runtime: Runtime,
    *,
    name: str,
    host: str,
    engine: EngineName = "pytorch",
    limits: Limits | None = None,
) -> Gate:
    """The whole ASGI application: the model, its routes, and the gate before them.

    Args:
        model: any of vitlab's; it is brought to the device and into evaluation mode.
        runtime: device and precision.
        name: what the page calls the model.
        host: the address that is listened on; requests for another host are refused.
        engine: what answers `/api/predict`; looks inside are PyTorch's always.
        limits: how much is taken on; the default where not given.

    Raises:
        UserError: the engine cannot run the model.
    """
    limits = limits or Limits()
    run = make_engine(engine, model, runtime)
    model.eval().to(runtime.device)
    height, width = model.preprocessing.size
    run(np.zeros((1, height, width, 3), np.uint8))  # what is wrong shows now, and the first client need not wait
    return Gate(cast(App, make_app(Looking(model, runtime, limits), run, name=name)), limits, host)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        UserError: the place is taken, or not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None
    return listener


def make_server(app: Gate, limits: Limits) -> uvicorn.Server:
    """The application in a uvicorn server; `server.run(sockets=[...])` serves until a signal or `should_exit`."""
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # not a line for every malformed request
    protocol = functools.partial(PatientProtocol, limits)
    config = uvicorn.Config(
        cast(Callable[..., Any], app), http=cast(Any, protocol), ws="none", loop="asyncio", lifespan="on",
        log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=cast(int, limits.idle_seconds), timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=16 * 2**10,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(app: Gate, listener: socket.socket, limits: Limits) -> None:
    """Answer requests until the process is asked to stop."""
    return_large_buffers()
    make_server(app, limits).run(sockets=[listener])
