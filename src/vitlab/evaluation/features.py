"""What a frozen model sees of images: its last features or those of any layer, kept for the next time.

Legend: N = images, D = width of the features.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vitlab import files
from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.evaluation.layers import check_layer, layer_features
from vitlab.models.build import Model, model_digest
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime

Features = tuple[np.ndarray, np.ndarray]  # (N, D) in float32, and class numbers (N,)
MAX_BYTES = 2**36


@dataclass(frozen=True)
class Identity:
    """What features depend on, each as a fingerprint.

    Attributes:
        model: its weights and shape.
        data: the images and labels.
        preprocessing: what was done to the images, the precision of the arithmetic, and the layer.
    """

    model: str
    data: str
    preprocessing: str

    @property
    def name(self) -> str:
        """Of the file that keeps them."""
        return hashlib.sha256("\0".join(astuple(self)).encode()).hexdigest()[:32] + ".safetensors"


def features_of(
    model: Model,
    source: Source,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    batch_size: int = 128,
    layer: str | None = None,
    cache: Path | None = None,
) -> Features:
    """The frozen model's features (N, D) in float32 and the class numbers (N,) of every image of `source`.

    Args:
        model: any.
        source: the images.
        preprocessing: what the images go through.
        runtime: device and precision.
        batch_size: images at a time; it does not change the result beyond rounding.
        layer: a part of the model by its name, such as "blocks.5": of tokens the class token is taken, or their mean
            where it is not among them; of a map the mean over its places. None is what the final linear layer sees.
        cache: a folder in which features are kept, and looked for first.

    Raises:
        UserError: there is no such layer, or none to take features from; the kept features are damaged or another
            model's.
    """
    identity = Identity(model_digest(model), source.fingerprint, _way(preprocessing, runtime, layer))
    if cache is not None:
        kept = read_kept(cache / identity.name, identity)
        if kept is not None:
            return kept
    features = _computed(model, source, preprocessing, runtime, batch_size, layer)
    if cache is not None:
        _keep(cache / identity.name, identity, features)
    return features


def pixels_of(source: Source, preprocessing: Preprocessing) -> Features:
    """Raw pixels (N, height x width x 3) as features: what a model has to beat."""
    batches = list(loader.evaluation_batches(source, preprocessing, batch_size=256))
    pixels = [batch.images_BHWC.flatten(1).numpy().astype(np.float32) / 255 for batch in batches]
    return np.concatenate(pixels), np.concatenate([batch.labels_B.numpy() for batch in batches])


def read_kept(path: Path, identity: Identity) -> Features | None:
    """Features that were kept in a file; none where there is no file.

    Raises:
        UserError: it is damaged, too large, or it holds features of something else than `identity`.
    """
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: these features are larger than 64 GiB; remove the file, and they are made again")
        with safe_open(path, "np") as file:
            told = file.metadata() or {}
            features_ND, labels_N = file.get_tensor("features"), file.get_tensor("labels")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: these kept features cannot be read ({error}); remove the file") from None
    for part, wanted in (("model", identity.model), ("data", identity.data), ("way", identity.preprocessing)):
        if told.get(part) != wanted:
            what = {"model": "another model", "data": "other images", "way": "another preprocessing or layer"}[part]
            raise UserError(f"{path}: it holds features of {what}; remove the file, or give another --cache")
    if told.get("checksum") != _checksum(features_ND, labels_N) or len(features_ND) != len(labels_N):
        raise UserError(f"{path}: these kept features are damaged; remove the file, and they are made again")
    return features_ND, labels_N


def _keep(path: Path, identity: Identity, features: Features) -> None:
    tensors = {"features": torch.from_numpy(features[0]), "labels": torch.from_numpy(features[1])}
    told = {"model": identity.model, "data": identity.data, "way": identity.preprocessing}
    try:
        files.write_bytes(path, save(tensors, {**told, "checksum": _checksum(*features)}))
    except OSError as error:
        raise UserError(f"cannot keep features in {path.parent}: {error.strerror}; choose another --cache") from None


def _checksum(features_ND: np.ndarray, labels_N: np.ndarray) -> str:
    digest = hashlib.sha256(features_ND.tobytes())
    digest.update(labels_N.tobytes())
    return digest.hexdigest()


def _way(preprocessing: Preprocessing, runtime: Runtime, layer: str | None) -> str:
    # Earlier versions kept the first patch of outputs without a class token under the layer's bare name.
    return f"{preprocessing} {runtime.compute} {'last' if layer is None else f'{layer}, by its tokens'}"


def check_layers(models: Mapping[str, Model], layer: str, runtime: Runtime) -> None:
    """Refuse a layer that one of the models has no features of, before any of them sees the data.

    Raises:
        UserError: as `features_of`, and with the model's name.
    """
    for name, model in models.items():
        try:
            with _running(model, runtime):
                check_layer(model, layer, model.preprocessing.size, runtime.device)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


@contextmanager
def _running(model: Model, runtime: Runtime) -> Iterator[None]:
    """A frozen model on its device."""
    was_training = model.training
    model.eval().to(runtime.device)
    try:
        with torch.inference_mode(), runtime.autocast():
            yield
    finally:
        model.train(was_training)


def _computed(
    model: Model,
    source: Source,
    preprocessing: Preprocessing,
    runtime: Runtime,
    batch_size: int,
    layer: str | None,
) -> Features:
    features, labels = [], []
    with _running(model, runtime):
        if layer is not None:
            check_layer(model, layer, preprocessing.size, runtime.device)
        for batch in loader.evaluation_batches(source, preprocessing, batch_size=batch_size):
            images_BCHW = loader.normalise(batch.images_BHWC, preprocessing, runtime.device)
            found_BD = model.features(images_BCHW) if layer is None else layer_features(model, layer, images_BCHW)
            features.append(found_BD.float().cpu().numpy())
            labels.append(batch.labels_B.numpy())
    return np.concatenate(features), np.concatenate(labels)
