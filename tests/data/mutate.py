"""Decodes damaged copies of small images and shards, one after the other, and says when the law is broken.

    python tests/data/mutate.py KIND COUNT SEED

The law: a damaged input is an image or a `UserError` of one line that names it, within seconds, and within the memory
that the largest permitted image takes. A crash, a hang or another exception ends this process with an error.
"""

import faulthandler
import io
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import sklearn.datasets
from PIL import Image

from vitlab.data.decoding import MAX_PIXELS
from vitlab.data.images import decode
from vitlab.errors import UserError
from vitlab.shards.opening import open_shards
from vitlab.shards.packing import tar_bytes

SECONDS = 60  # the largest permitted image takes some, on a busy machine many
MOST_BYTES = 3 * 4 * MAX_PIXELS  # Pillow's own image, its conversion and the array, at 4 bytes a pixel at most

KINDS = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive": ("JPEG", "RGB", {"progressive": True}),
    "cmyk": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "palette": ("PNG", "P", {}),
    "grey16": ("PNG", "I;16", {}),
    "tar": ("PNG", "L", {}),
}


def original(kind):
    image_format, mode, options = KINDS[kind]
    photo = Image.fromarray(sklearn.datasets.load_sample_image("china.jpg")).resize((40, 30))
    picture = photo.convert("L").convert("I").convert(mode) if mode == "I;16" else photo.convert(mode)
    packed = io.BytesIO()
    picture.save(packed, image_format, **options)
    if kind != "tar":
        return packed.getvalue()
    members = [(f"{n}.png", packed.getvalue()) for n in range(3)] + [(f"{n}.cls", b"%d" % (n % 2)) for n in range(3)]
    return tar_bytes(members)


def mutated(data, rng):
    """One to four changes: bytes set, bits turned, pieces cut out, doubled or swapped, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        # Headers are where decoders go wrong, so half of the changes fall there.
        place = int(rng.integers(min(600, len(data)) if rng.random() < 0.5 else len(data)))
        length = int(rng.integers(1, 40))
        change = rng.integers(6)
        if change == 0:
            data[place : place + length % 5 + 1] = rng.integers(0, 256, length % 5 + 1, np.uint8).tobytes()
        elif change == 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif change == 2:
            del data[place : place + length]
        elif change == 3:
            data[place:place] = data[place : place + length]
        elif change == 4:
            data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xd9"])
        else:
            del data[place:]
        if not data:
            return b""
    return bytes(data)


def attempt(data, kind, path):
    """The number of images that came out."""
    if kind != "tar":
        image = decode(data, "broken.img")
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        return 1
    path.write_bytes(data)
    path.with_suffix(".index.json").unlink(missing_ok=True)
    source = open_shards([path], "broken.img")
    for index in range(len(source)):
        decode(source.read(index).data, "broken.img")
    return len(source)


def main(kind, count, seed):
    data, rng = original(kind), np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    images = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.img.tar"
        for _ in range(count):
            broken = mutated(data, rng)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                images += attempt(broken, kind, path) > 0
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
                assert "broken.img" in str(error)
            faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown <= MOST_BYTES, f"{grown:,} bytes"
    print(f"{images} {refused}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
