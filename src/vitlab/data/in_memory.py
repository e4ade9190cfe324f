"""Images that stay in memory from one epoch to the next: decoded ones, and complete batches of small ones.

Raw pixels of the model's size, and tiny images of any format once they are decoded and resized, take microseconds to
make: they are cropped by some pixels and mirrored at most, a complete batch at once. Their pixels are those of
`crop_and_draw` and `vary`, image by image; only the time differs.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.data.augmentation.augment import draw_flip, draw_place
from vitlab.data.decoding import is_ppm
from vitlab.data.images import RGB, Picture, as_picture, open_picture
from vitlab.data.order import SampleGenerators
from vitlab.data.resize import prepare
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

Int64s = NDArray[np.int64]

TINY = 64 * 64  # pixels; decoding so few costs less than training on them, and is done in the first epoch alone


class PictureCache:
    """Opens a source's images, and keeps small ones decoded for the next epoch while they fit into `room` bytes.

    An image that may be shrunk in decoding is never kept: whether a crop comes from the full or from the shrunk
    image must depend on the crop alone.

    Args:
        source: the images.
        size: (height, width) of the model's input.
        room: bytes that decoded images may take.
    """

    def __init__(self, source: Source, size: tuple[int, int], room: int) -> None:
        self._source, self._size, self._room = source, size, room
        self._kept: dict[int, Picture] = {}

    def picture(self, index: int) -> Picture:
        """The image at `index`.

        Raises:
            UserError: it cannot be read, or its header is damaged.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._source.read(index)
        picture = open_picture(sample.data, sample.name)
        if picture.largest_shrink(self._size) > 1 or picture.height * picture.width * 3 > self._room:
            return picture
        kept = as_picture(picture.pixels()) if picture.shrinkable else picture  # what cannot be shrunk is decoded
        # Two threads may overdraw the room by an image each, which is harmless; a lock here would not be.
        self._room -= kept.height * kept.width * 3
        self._kept[index] = kept
        return kept


def fit_in_memory(source: Source, preprocessing: Preprocessing, augmentation: Augmentation, room: int) -> bool:
    """Whether `InMemoryImages` can make the batches: all images have to fit, and the first one to be raw or tiny.

    Args:
        source: the training images.
        preprocessing: the model's.
        augmentation: has to be plain: crop "none" or "pad", and mirroring at most.
        room: bytes.
    """
    height, width = preprocessing.size
    plain = augmentation.crop in ("none", "pad") and not augmentation.randaugment_layers and not augmentation.erase
    if not plain or len(source) * height * width * 3 > room:
        return False
    try:
        return _prepared(source, 0, preprocessing) is not None
    except UserError:
        return False  # reported when its turn comes


def _prepared(source: Source, index: int, preprocessing: Preprocessing) -> RGB | None:
    """An image that is raw, or tiny, at the model's size; None where it would take long to make."""
    height, width = preprocessing.size
    sample = source.read(index)
    is_encoded = isinstance(sample.data, bytes) and not is_ppm(sample.data)
    if is_encoded and height * width > TINY:
        return None
    picture = open_picture(sample.data, sample.name)
    is_ready = (picture.height, picture.width) == preprocessing.size and preprocessing.crop == 1
    if not is_ready and max(picture.height * picture.width, height * width) > TINY:
        return None
    return prepare(picture.pixels(), preprocessing)


class InMemoryImages:
    """Makes complete batches of images that it has read once and keeps at the model's size.

    Args:
        source: the training images.
        preprocessing: the model's.
        augmentation: crop "none" or "pad", and whether to mirror.
        seed: of the augmentation.
    """

    def __init__(self, source: Source, preprocessing: Preprocessing, augmentation: Augmentation, seed: int) -> None:
        self._source, self._preprocessing, self._augmentation = source, preprocessing, augmentation
        self._generators = SampleGenerators(seed)
        self._kept_NHWC = np.empty((len(source), *preprocessing.size, 3), np.uint8)
        self._is_kept_N = np.zeros(len(source), np.bool_)

    def fill(self, epochs_B: Int64s, indices_B: Int64s, out_BHWC: RGB) -> bool:
        """Makes a batch; False where one of its images would take long after all, or cannot be read."""
        if not all(self._keep(index) for index in indices_B[~self._is_kept_N[indices_B]].tolist()):
            return False
        pad = self._augmentation.pad if self._augmentation.crop == "pad" else 0
        images_BHWC = self._kept_NHWC[indices_B]
        height, width = images_BHWC.shape[1:3]
        if pad:
            images_BHWC = np.pad(images_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        mirrored = []
        for row, (epoch, index) in enumerate(zip(epochs_B.tolist(), indices_B.tolist(), strict=True)):
            rng = self._generators.of(epoch, index)
            top, left = draw_place(pad, rng) if pad else (0, 0)
            if draw_flip(self._augmentation, rng):
                mirrored.append(row)
            out_BHWC[row] = images_BHWC[row, top : top + height, left : left + width]
        rows = torch.tensor(mirrored, dtype=torch.int64)
        pixels_BHWC = torch.from_numpy(out_BHWC)
        pixels_BHWC[rows] = pixels_BHWC[rows].flip(2)
        return True

    def _keep(self, index: int) -> bool:
        try:
            pixels = _prepared(self._source, index, self._preprocessing)
        except UserError:
            return False
        if pixels is not None:
            self._kept_NHWC[index] = pixels
            self._is_kept_N[index] = True
        return pixels is not None
