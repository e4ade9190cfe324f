"""A model served on a socket of this machine."""

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
from vitlab.serving.connections import TimeoutProtocol
from vitlab.serving.engine import EngineName, onnx_engine, torch_engine
from vitlab.serving.inspector import Inspector
from vitlab.serving.limits import Limits
from vitlab.serving.memory import use_one_arena
from vitlab.serving.middleware import App, GuardMiddleware

BACKLOG = 128
DEFAULT_LIMITS = Limits()


def make_served_app(
    model: Model,
    runtime: Runtime,
    *,
    name: str,
    host: str,
    engine: EngineName = "pytorch",
    limits: Limits = DEFAULT_LIMITS,
) -> GuardMiddleware:
    """The complete ASGI application: the model, its routes, and the middleware in front of them.

    Args:
        model: any model of vitlab; it is moved to the device and set to evaluation mode.
        runtime: device and precision.
        name: of the model, shown on the page.
        host: the address that the server listens on; requests for another host are refused.
        engine: runs the model for `/api/predict`; inspections always run in PyTorch.
        limits: sizes, timeouts and numbers of requests; the defaults if not given.

    Raises:
        UserError: the engine cannot run the model.
    """
    run = onnx_engine(model) if engine == "onnx" else torch_engine(model, runtime)
    model.eval().to(runtime.device)
    height, width = model.preprocessing.size
    run(np.zeros((1, height, width, 3), np.uint8))  # errors show now, and the first client need not wait
    return GuardMiddleware(cast(App, make_app(Inspector(model, runtime, limits), run, name=name)), limits, host)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free port.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
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


def make_server(app: GuardMiddleware, limits: Limits) -> uvicorn.Server:
    """A uvicorn server for the application; `server.run(sockets=[...])` serves until a signal or `should_exit`."""
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # no line for every malformed request
    protocol = functools.partial(TimeoutProtocol, limits)
    config = uvicorn.Config(
        cast(Callable[..., Any], app), http=cast(Any, protocol), ws="none", loop="asyncio", lifespan="on",
        log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=cast(int, limits.idle_seconds), timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=16 * 2**10,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(app: GuardMiddleware, listener: socket.socket, limits: Limits) -> None:
    """Answer requests until the process receives a signal to stop."""
    use_one_arena()
    make_server(app, limits).run(sockets=[listener])
