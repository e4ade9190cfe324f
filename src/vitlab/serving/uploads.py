"""From the body of a request to an image: raw bytes or a form; the size in pixels is checked before decoding."""

from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vitlab.data import images
from vitlab.data.decoding import MAX_PIXELS, is_ppm, open_image
from vitlab.data.images import RGB
from vitlab.errors import UserError
from vitlab.serving.limits import Limits, Refused

NAME = "the image"  # in errors; the file name that a client sends is never used
FIELD = b"image"
MOST_PARTS = 16
IN_A_FORM = "send a form with a field 'image', or the image as the body"


def is_image_type(content_type: str) -> bool:
    """Whether a body of that type may be an image; types that any website may send without a preflight are refused."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("image/") or kind in ("multipart/form-data", "application/octet-stream")


def image_bytes(body: bytes, content_type: str) -> bytes:
    """The encoded image in a body.

    Raises:
        Refused: 400, a form that is malformed, has too many fields, or holds no image.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return body
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refused(400, f"the form has no boundary; {IN_A_FORM}")
    reader = _FormReader()
    try:
        parser = MultipartParser(boundary, reader.callbacks(), max_header_count=8, max_header_size=2048)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form is malformed ({str(error)[:100]}); {IN_A_FORM}") from None
    if not reader.complete:
        raise Refused(400, f"the form is truncated; {IN_A_FORM}")
    return reader.image()


def decode_upload(data: bytes, limits: Limits) -> RGB:
    """The image as uint8 RGB, upright; see `vitlab.data.images.decode`.

    Raises:
        Refused: 413, it has more pixels than `limits.pixels`; 422, it cannot be decoded as an image.
    """
    try:
        if not is_ppm(data):  # which has no more pixels than bytes
            width, height = open_image(data, NAME).size
            if width * height > limits.pixels:
                raise Refused(413, f"{width} x {height} pixels exceed the limit of {limits.pixels:,}")
        return images.decode(data, NAME)
    except UserError as error:
        too_large = f"{MAX_PIXELS:,}" in str(error)  # the decoder's own limit
        raise Refused(413 if too_large else 422, str(error)) from None


@dataclass
class _FormField:
    """One field of a form, in the chunks that the parser delivers."""

    name: bytes = b""
    chunks: list[bytes] = field(default_factory=list)


class _FormReader:
    """Collects the fields of a form from the parser's callbacks."""

    def __init__(self) -> None:
        self.complete = False
        self._fields: list[_FormField] = []
        self._header = b""
        self._value = b""

    def callbacks(self) -> Any:
        """The parser's callbacks; its own type for them exists for type checkers only."""
        return {
            "on_part_begin": self._begin, "on_part_data": self._add_data, "on_end": self._end,
            "on_header_field": self._add_header, "on_header_value": self._add_value, "on_header_end": self._end_header,
        }  # fmt: skip

    def image(self) -> bytes:
        """The field `image`.

        Raises:
            Refused: 400, there is not exactly one.
        """
        images = [field for field in self._fields if field.name == FIELD]
        if len(images) != 1:
            raise Refused(400, f"the form has {len(images)} fields 'image'; {IN_A_FORM}")
        return b"".join(images[0].chunks)

    def _begin(self) -> None:
        if len(self._fields) == MOST_PARTS:
            raise Refused(400, f"the form has more than {MOST_PARTS} fields; {IN_A_FORM}")
        self._fields.append(_FormField())

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._fields[-1].name = options.get(b"name", b"")
        self._header = self._value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._fields[-1].chunks.append(data[start:end])

    def _end(self) -> None:
        self.complete = True
