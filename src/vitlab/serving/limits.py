"""The limits of a server, and the error for a request that exceeds them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds: every queue, size and timeout of the server.

    Attributes:
        body_bytes: of one request body.
        bodies_bytes: of all request bodies in memory together.
        pixels: of an image, checked in its header before it is decoded.
        waiting: images in the queue for prediction.
        inspections: concurrent requests for attention maps and the like, whose responses can be tens of megabytes.
        response_bytes: of the attention maps in one response.
        batch: images per batch.
        gather_seconds: how long a batch waits for more images.
        header_seconds: for a client to send the headers of a request.
        body_seconds: for it to send the body.
        idle_seconds: for which a connection is kept alive after a response.
        response_seconds: for a complete request, until the client has read the response.
        connections: open at the same time.
    """

    body_bytes: int = 16 * 2**20
    bodies_bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    waiting: int = 64
    inspections: int = 4
    response_bytes: int = 64 * 2**20
    batch: int = 16
    gather_seconds: float = 0.005
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 5.0
    response_seconds: float = 300.0
    connections: int = 128


class Refused(Exception):
    """A request that is refused.

    Attributes:
        status: the HTTP status code, 4xx.
        reason: one sentence for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
