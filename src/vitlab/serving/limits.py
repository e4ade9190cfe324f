"""How much a server takes on, and the answer that says it is too much."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; every queue, size and wait has one.

    Attributes:
        body_bytes: of a request.
        bodies_bytes: of all requests that are held at a time.
        pixels: of an image, read from its header before any is decoded.
        waiting: images that wait for a prediction.
        looking: requests that look inside the model at a time; their answers can be tens of megabytes.
        answer_bytes: of attention maps in one answer.
        batch: images of a batch.
        gather_seconds: how long a batch waits for more images.
        head_seconds: in which a client must have sent a request's head.
        body_seconds: in which it must have sent the body.
        idle_seconds: for which a connection is kept after an answer.
        answer_seconds: in which a request must be over, its answer read by the client included.
        connections: open at a time.
    """

    body_bytes: int = 16 * 2**20
    bodies_bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    waiting: int = 64
    looking: int = 4
    answer_bytes: int = 64 * 2**20
    batch: int = 16
    gather_seconds: float = 0.005
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 5.0
    answer_seconds: float = 300.0
    connections: int = 128


class Refused(Exception):
    """A request that is not served.

    Attributes:
        status: HTTP's code, 4xx.
        reason: in a sentence, for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
