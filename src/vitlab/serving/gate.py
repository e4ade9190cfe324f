"""What a request must be before anything is done for it: from here, of a kind that is served, small, and in time.

A server on 127.0.0.1 is reachable by every web page that the same person's browser shows. So a request's Host must be
this server's (against DNS rebinding), its Origin too (against forged requests), and no type of body is taken that a
foreign page may send without asking.
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

LOOPBACK = frozenset(["127.0.0.1", "localhost", "::1"])
LOOKING = frozenset(["/api/look", "/api/attention", "/api/similarity"])
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


class Gate:
    """ASGI middleware: lets requests in with their whole body read, or answers 4xx.

    Args:
        app: what serves the requests that are let in.
        limits: how much is taken on.
        host: the address that the server listens on.
    """

    def __init__(self, app: App, limits: Limits, host: str) -> None:
        self._app = app
        self._limits = limits
        self._host = host
        self._held_bytes = 0
        self._looking = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _with_headers(send)
        with _Held(self) as held:
            try:
                self._check_origin(scope)
                with self._slot(scope["path"]):
                    body = await self._body(scope, receive, held)
                    await self._app(scope, _replayed(body, receive), sender)
            except Refused as refused:
                await _refuse(refused, sender)

    def _check_origin(self, scope: Scope) -> None:
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(421, "this server does not answer under that name; open it by its address")
        if any(origin.lower() != f"{scope['scheme']}://{hosts[0].lower()}" for origin in origins):
            raise Refused(403, "another web page may not use this server")
        foreign = _all(scope, b"sec-fetch-site")
        if scope["path"].startswith("/api/") and any(site in ("cross-site", "same-site") for site in foreign):
            raise Refused(403, "another web page may not use this server")

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host.lower())
        if name in LOOPBACK or name == self._host.lower():
            return True
        # Listening everywhere: an address cannot be rebound, a name can.
        return self._host in ("0.0.0.0", "::") and _is_address(name)

    @contextmanager
    def _slot(self, path: str) -> Iterator[None]:
        """One of the places of those that look inside the model, held until the answer is sent."""
        looks = path in LOOKING
        if looks and self._looking >= self._limits.looking:
            raise Refused(429, "too many are looking inside the model; try again in a while")
        self._looking += looks
        try:
            yield
        finally:
            self._looking -= looks

    async def _body(self, scope: Scope, receive: Receive, held: "_Held") -> bytes:
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
                return await self._read(receive, held)
        except TimeoutError:
            raise Refused(408, f"the body was not there after {self._limits.body_seconds:g} seconds") from None

    async def _read(self, receive: Receive, held: "_Held") -> bytes:
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client went away")
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            held.add(len(piece))
            if size > self._limits.body_bytes or self._held_bytes > self._limits.bodies_bytes:
                pieces.clear()
                if more:
                    await self._drain(receive)
                if size > self._limits.body_bytes:
                    raise self._too_large()
                raise Refused(429, "too much is being sent at a time; try again in a while")
            pieces.append(piece)
        return b"".join(pieces)

    async def _drain(self, receive: Receive) -> None:
        """Lets a client finish sending, up to a bound: one that still sends when it is cut off sees no answer."""
        left = 2 * self._limits.body_bytes
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return

    def _too_large(self) -> Refused:
        return Refused(413, f"the body has more than the {self._limits.body_bytes:,} bytes that are taken")

    def hold(self, count: int) -> None:
        """Count bytes of bodies in memory."""
        self._held_bytes += count


class _Held:
    """The bytes of one request's body, given back at its end."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._count = 0

    def __enter__(self) -> "_Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.hold(-self._count)

    def add(self, count: int) -> None:
        self._count += count
        self._gate.hold(count)


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; nothing where it is malformed."""
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
    """Gives the body that was read, then what comes from the client."""
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
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
