"""Features of a frozen model, from its last layer or any other, with an optional cache on disk.

Legend: N = images, B = images of a batch, D = width of the features.
"""

import hashlib
from collections.abc import Mapping
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
from vitlab.evaluation.accuracy import evaluating
from vitlab.evaluation.layers import check_layer, layer_features
from vitlab.models.build import Model, model_digest
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime

Features = tuple[np.ndarray, np.ndarray]  # (N, D) in float32, and class numbers (N,)
MAX_BYTES = 2**36


@dataclass(frozen=True)
class CacheKey:
    """Everything that features depend on, as fingerprints.

    Attributes:
        model: of its weights and configuration.
        data: of the images and labels.
        preprocessing: what the images go through, the precision of the arithmetic, and the layer.
    """

    model: str
    data: str
    preprocessing: str

    @property
    def file_name(self) -> str:
        """The name of the cache's file."""
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
        model: any model.
        source: the images.
        preprocessing: resizing and normalisation of the images.
        runtime: device and precision.
        batch_size: images per batch; it does not change the result beyond rounding.
        layer: the name of a module of the model, such as "blocks.5": tokens give the class token, or their mean if it
            is not among them; a map gives the mean over its positions. None: the input of the final linear layer.
        cache: a folder of cached features, which is searched first and written to.

    Raises:
        UserError: there is no such layer, or it gives no features; the cached features are damaged or another model's.
    """
    key = CacheKey(model_digest(model), source.fingerprint, _processing(preprocessing, runtime, layer))
    if cache is not None:
        cached = _read_cached(cache / key.file_name, key)
        if cached is not None:
            return cached
    features = _computed(model, source, preprocessing, runtime, batch_size, layer)
    if cache is not None:
        _write_cached(cache / key.file_name, key, features)
    return features


def pixels_of(source: Source, preprocessing: Preprocessing) -> Features:
    """Raw pixels (N, height x width x 3) as features: the baseline of a model's features."""
    batches = list(loader.evaluation_batches(source, preprocessing, batch_size=256))
    pixels = [batch.images_BHWC.flatten(1).numpy().astype(np.float32) / 255 for batch in batches]
    return np.concatenate(pixels), np.concatenate([batch.labels_B.numpy() for batch in batches])


def _read_cached(path: Path, key: CacheKey) -> Features | None:
    """The features in a file of the cache; None if there is no file.

    Raises:
        UserError: it is damaged, too large, or does not hold the features of `key`.
    """
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: these cached features are over 64 GiB; remove the file to compute them again")
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            features_ND, labels_N = file.get_tensor("features"), file.get_tensor("labels")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot read cached features ({error}); remove the file to recompute them") from None
    for name, expected in _metadata(key).items():
        if metadata.get(name) != expected:
            what = {"model": "another model", "data": "other images", "way": "another preprocessing or layer"}[name]
            raise UserError(f"{path}: this file holds features of {what}; remove it, or choose another --cache")
    if metadata.get("checksum") != _checksum(features_ND, labels_N) or len(features_ND) != len(labels_N):
        raise UserError(f"{path}: these cached features are damaged; remove the file to compute them again")
    return features_ND, labels_N


def _write_cached(path: Path, key: CacheKey, features: Features) -> None:
    tensors = {"features": torch.from_numpy(features[0]), "labels": torch.from_numpy(features[1])}
    try:
        files.write_bytes(path, save(tensors, {**_metadata(key), "checksum": _checksum(*features)}))
    except OSError as error:
        raise UserError(f"cannot write features to {path.parent}: {error.strerror}; choose another --cache") from None


def _metadata(key: CacheKey) -> dict[str, str]:
    return {"model": key.model, "data": key.data, "way": key.preprocessing}


def _checksum(features_ND: np.ndarray, labels_N: np.ndarray) -> str:
    digest = hashlib.sha256(features_ND.tobytes())
    digest.update(labels_N.tobytes())
    return digest.hexdigest()


def _processing(preprocessing: Preprocessing, runtime: Runtime, layer: str | None) -> str:
    # Version 0.1 stored the first patch of outputs without a class token under the layer's bare name.
    return f"{preprocessing} {runtime.compute} {'last' if layer is None else f'{layer}, by its tokens'}"


def check_layers(models: Mapping[str, Model], layer: str, runtime: Runtime) -> None:
    """Refuse a layer that gives no features in one of the models, before any data is read.

    Raises:
        UserError: as `features_of`, with the model's name.
    """
    for name, model in models.items():
        try:
            with evaluating(model, runtime):
                check_layer(model, layer, model.preprocessing.size, runtime.device)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def _computed(
    model: Model, source: Source, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, layer: str | None
) -> Features:
    features, labels = [], []
    with evaluating(model, runtime):
        if layer is not None:
            check_layer(model, layer, preprocessing.size, runtime.device)
        for batch in loader.evaluation_batches(source, preprocessing, batch_size=batch_size):
            images_BCHW = loader.normalise(batch.images_BHWC, preprocessing, runtime.device)
            features_BD = model.features(images_BCHW) if layer is None else layer_features(model, layer, images_BCHW)
            features.append(features_BD.float().cpu().numpy())
            labels.append(batch.labels_B.numpy())
    return np.concatenate(features), np.concatenate(labels)
