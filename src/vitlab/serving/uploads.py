"""From the body of a request to an image: raw bytes or a form, its pixels counted before any is decoded."""

from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vitlab.data import images
from vitlab.data.decoding.pillow import open_image
from vitlab.data.decoding.ppm import is_ppm
from vitlab.data.images import RGB
from vitlab.errors import UserError
from vitlab.serving.limits import Limits, Refused

NAME = "the image"  # in errors; what a client calls its file is never used
FIELD = b"image"
MOST_PARTS = 16
IN_A_FORM = "send a form with the image as its field 'image', or the image alone"


def is_image_type(content_type: str) -> bool:
    """Whether a body of that type may be an image; types that any web page may send unasked are not."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("image/") or kind in ("multipart/form-data", "application/octet-stream")


def image_bytes(body: bytes, content_type: str) -> bytes:
    """The encoded image in a body.

    Raises:
        Refused: 400, a form that is malformed, has too many parts, or holds no image.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return body
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refused(400, f"the form has no boundary; {IN_A_FORM}")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks(), max_header_count=8, max_header_size=2048)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form is malformed ({str(error)[:100]}); {IN_A_FORM}") from None
    if not parts.complete:
        raise Refused(400, f"the form is cut short; {IN_A_FORM}")
    return parts.image()


def decode_upload(data: bytes, limits: Limits) -> RGB:
    """The image as uint8 RGB, upright; see `vitlab.data.images.decode`.

    Raises:
        Refused: 413, it has more pixels than `limits.pixels`; 422, it is no image that can be decoded.
    """
    try:
        if not is_ppm(data):  # whose pixels are no more than its bytes
            width, height = open_image(data, NAME).size
            if width * height > limits.pixels:
                raise Refused(413, f"{width} x {height} pixels are more than the {limits.pixels:,} that are taken")
        return images.decode(data, NAME)
    except UserError as error:
        raise Refused(413 if "that are decoded" in str(error) else 422, str(error)) from None


@dataclass
class _Part:
    """One part of a form, as the places of its pieces in the body."""

    name: bytes = b""
    pieces: list[bytes] = field(default_factory=list)


class _Parts:
    """Collects the parts of a form as the parser finds them."""

    def __init__(self) -> None:
        self.complete = False
        self._parts: list[_Part] = []
        self._header = b""
        self._value = b""

    def callbacks(self) -> Any:
        """What the parser calls; its own type for this exists for type checkers only."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def image(self) -> bytes:
        """The field `image`.

        Raises:
            Refused: 400, there is not exactly one.
        """
        found = [part for part in self._parts if part.name == FIELD]
        if len(found) != 1:
            raise Refused(400, f"the form has {len(found)} fields 'image'; {IN_A_FORM}")
        return b"".join(found[0].pieces)

    def _begin(self) -> None:
        if len(self._parts) == MOST_PARTS:
            raise Refused(400, f"the form has more than {MOST_PARTS} parts; {IN_A_FORM}")
        self._parts.append(_Part())

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._parts[-1].name = options.get(b"name", b"")
        self._header = self._value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].pieces.append(data[start:end])

    def _end(self) -> None:
        self.complete = True
