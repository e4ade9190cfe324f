"""Middleware that checks every request before the application sees it: origin, content type, size and time.

A server on 127.0.0.1 can be reached by every website that is open in the same user's browser. So the Host of a
request must be this server's (against DNS rebinding), its Origin too (against cross-site request forgery), and content
types that other websites may send without a CORS preflight are refused.
"""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from vitlab.serving.limits import Limits, Refused
from vitlab.serving.uploads import is_image_type

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Hold = Callable[[int], None]  # counts bytes of a body as held in memory

LOOPBACK = frozenset(["127.0.0.1", "localhost", "::1"])
INSPECTION_PATHS = frozenset(["/api/look", "/api/attention", "/api/similarity"])
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class GuardMiddleware:
    """ASGI middleware: passes requests on with their complete body, or responds with 4xx.

    Args:
        app: the application behind it.
        limits: sizes, timeouts and numbers of requests.
        host: the address that the server listens on.
    """

    def __init__(self, app: App, limits: Limits, host: str) -> None:
        self._app = app
        self._limits = limits
        self._host = host
        self._held_bytes = 0
        self._inspections = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and end of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _with_headers(send)
        with self._held() as hold:
            try:
                self._check_origin(scope)
                with self._slot(scope["path"]):
                    body = await self._body(scope, receive, hold)
                    await self._app(scope, _replayed(body, receive), sender)
            except Refused as refused:
                await _refuse(refused, sender)

    def _check_origin(self, scope: Scope) -> None:
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(421, "this server is not known by that name; open it by its address")
        if any(origin.lower() != f"{scope['scheme']}://{hosts[0].lower()}" for origin in origins):
            raise Refused(403, "other websites may not use this server")
        foreign = _all(scope, b"sec-fetch-site")
        if scope["path"].startswith("/api/") and any(site in ("cross-site", "same-site") for site in foreign):
            raise Refused(403, "other websites may not use this server")

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host.lower())
        if name in LOOPBACK or name == self._host.lower():
            return True
        # On all interfaces any address is accepted but no name: DNS rebinding needs a name.
        return self._host in ("0.0.0.0", "::") and _is_address(name)

    @contextmanager
    def _slot(self, path: str) -> Iterator[None]:
        """One of the slots for inspections, held until the response is sent; other paths need none."""
        inspects = path in INSPECTION_PATHS
        if inspects and self._inspections >= self._limits.inspections:
            raise Refused(429, "too many inspections at once; try again later")
        self._inspections += inspects
        try:
            yield
        finally:
            self._inspections -= inspects

    async def _body(self, scope: Scope, receive: Receive, hold: Hold) -> bytes:
        if scope["method"] != "POST":
            return b""
        if not is_image_type("".join(_all(scope, b"content-type")[:1])):
            raise Refused(415, "send an image (Content-Type image/...), or a form with the field 'image'")
        lengths = _all(scope, b"content-length")
        too_large = any(length.isdigit() and int(length[:12]) > self._limits.body_bytes for length in lengths)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                if too_large:
                    await self._drain(receive)
                    raise self._too_large()
                return await self._read(receive, hold)
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._limits.body_seconds:g} seconds") from None

    async def _read(self, receive: Receive, hold: Hold) -> bytes:
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client disconnected")
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            hold(len(piece))
            if size > self._limits.body_bytes or self._held_bytes > self._limits.bodies_bytes:
                pieces.clear()
                if more:
                    await self._drain(receive)
                if size > self._limits.body_bytes:
                    raise self._too_large()
                raise Refused(429, "too much data is being sent at once; try again later")
            pieces.append(piece)
        return b"".join(pieces)

    async def _drain(self, receive: Receive) -> None:
        """Read and discard the rest of a body, up to a bound: a client sees no response while it is still sending."""
        left = 2 * self._limits.body_bytes
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than the limit of {self._limits.body_bytes:,} bytes")

    @contextmanager
    def _held(self) -> Iterator[Hold]:
        """Adds the bytes of one request body to those of all in memory, and subtracts them when the request ends."""
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            held += count
            self._held_bytes += count

        try:
            yield hold
        finally:
            self._held_bytes -= held


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; empty if it is malformed."""
    name, colon, port = host.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    if not colon:
        return host
    if not (port.isdigit() and port.isascii()):
        return ""
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Receives the body that was already read, then what the client sends."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return sender


async def _refuse(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.reason}).encode()
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, (b"connection", b"close")]
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
