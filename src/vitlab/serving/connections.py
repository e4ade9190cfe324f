"""A bounded number of connections with a timeout for every phase, so that slow clients do not occupy the server."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vitlab.serving.limits import Limits

SHORT = "HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with timeouts; by itself it waits forever for headers and for a slow reader.

    Args:
        limits: timeouts, and the number of connections.
        config, server_state, app_state: uvicorn's own.
    """

    def __init__(
        self,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None  # the request that the timer is for; None while headers are awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._end("429 Too Many Requests")
        else:
            self._start_timer(None)

    def data_received(self, data: bytes) -> None:
        """Part of a request has arrived."""
        super().data_received(data)
        running = self._running()
        if running is not None and running is not self._timed:
            self._start_timer(running)
        elif running is None and self._timer is None and not self.transport.is_closing():
            self._start_timer(None)

    def on_response_complete(self) -> None:
        """A response has been sent; a pipelined request starts at once."""
        self._stop_timer()
        super().on_response_complete()
        running = self._running()
        if running is not None:
            self._start_timer(running)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_timer()
        super().connection_lost(exc)

    def _running(self) -> object:
        return self.cycle if self.cycle is not None and not self.cycle.response_complete else None

    def _start_timer(self, timed: object) -> None:
        self._stop_timer()
        self._timed = timed
        seconds = self._limits.header_seconds if timed is None else self._limits.response_seconds
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def _expire(self) -> None:
        self._timer = None
        if self._timed is None:
            self._end("408 Request Timeout")
        else:
            self.transport.abort()

    def _end(self, status: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(SHORT.format(status).encode())
            self.transport.close()
