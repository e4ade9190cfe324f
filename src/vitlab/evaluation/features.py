"""Features of a frozen model, from its last layer or the output of any module, with an optional cache on disk.

Legend: N = images, B = images of a batch, D = width of the features or tokens, C H W channels, height, width of a map.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vitlab import files
from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.errors import UserError, unknown_name
from vitlab.evaluation.accuracy import evaluating
from vitlab.models.build import Model, model_digest
from vitlab.models.positions import RelativePositions
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime

Features = tuple[np.ndarray, np.ndarray]  # (N, D) in float32, and class numbers (N,)
MAX_BYTES = 2**36
# Two, because with a single image every axis of length 1 would pass for the batch.
TRIAL_IMAGES = 2
OnOutput = Callable[[str, nn.Module, object], None]


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


def check_layer(model: Model, layer: str, image_hw: tuple[int, int], device: torch.device) -> None:
    """Run the model, which is on `device`, on two empty images to find out whether a layer gives features.

    Raises:
        UserError: there is no such layer, it is not run, or its output is not a row, tokens or a map per image.
    """
    reasons: dict[str, str] = {}

    def note_refusal(name: str, module: nn.Module, output: object) -> None:
        reasons[name] = _refusal(module, output, TRIAL_IMAGES, model)

    modules = {name: module for name, module in model.named_modules() if name}
    _run(model, modules, note_refusal, torch.zeros(TRIAL_IMAGES, 3, *image_hw, device=device))
    good = [name for name in modules if not reasons.get(name, "not run")]
    outer = _listed(name for name in good if not isinstance(modules[name], nn.Dropout))
    listing = f"choose {outer}, or a module inside one of these"
    if layer not in modules:
        raise unknown_name("layer", layer, good, listing=listing)
    if layer not in reasons:
        raise UserError(f"layer '{layer}' is never called as a module in this model; {listing}")
    if reasons[layer]:
        raise UserError(f"layer '{layer}' gives no features: {reasons[layer]}; {listing}")


def layer_features(model: Model, layer: str, images_BCHW: Tensor) -> Tensor:
    """Features (B, D) of normalised images from the output of a layer; of a layer that is run twice, the last output.

    Tokens give the class token, or their mean if it is not among them; a map gives the mean over its positions.

    Args:
        model: any model.
        layer: one that `check_layer` accepts.
        images_BCHW: the model's input.
    """
    rows: list[Tensor] = []

    def collect(name: str, module: nn.Module, output: object) -> None:
        assert isinstance(output, Tensor)
        rows.append(_rows(output, model))

    _run(model, {layer: model.get_submodule(layer)}, collect, images_BCHW)
    return rows[-1]


def _run(model: Model, modules: Mapping[str, nn.Module], on_output: OnOutput, images_BCHW: Tensor) -> None:
    """One forward pass that hands every output of these modules to `on_output`; the hooks are removed afterwards."""

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda module, _, output: on_output(name, module, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()


def _refusal(module: nn.Module, output: object, images: int, model: Model) -> str:
    """Why this output gives no features; empty if it does."""
    if not isinstance(output, Tensor) or isinstance(module, RelativePositions):
        return "its output is not a tensor of features"
    shape = " x ".join(map(str, output.shape))
    if output.ndim == 0 or len(output) != images:
        return f"its output has shape {shape} for {images} images: the first axis is not the number of images"
    if output.ndim in (2, 4) or (output.ndim == 3 and output.shape[1] in _lengths(model)):
        return ""
    return f"its output of shape {shape} is neither a row, nor tokens, nor a map per image"


def _lengths(model: Model) -> set[int]:
    """The possible numbers of tokens of an image: all, only the patches, or only the class token."""
    if not isinstance(model, VisionTransformer):
        return set()
    return {model.config.tokens, model.config.tokens - model.prefix_tokens, 1}


def _rows(output: Tensor, model: Model) -> Tensor:
    if output.ndim == 4:
        return output.mean((2, 3))
    if output.ndim == 2:
        return output
    assert isinstance(model, VisionTransformer)
    # The patch projection's output has no class token even if the model has one.
    with_token = model.prefix_tokens > 0 and output.shape[1] == model.config.tokens
    return output[:, 0] if with_token else output.mean(1)


def _listed(names: Iterable[str]) -> str:
    """The outermost names; numbered ones as "blocks.0 to blocks.11"."""
    outer: list[str] = []
    for name in names:  # a module comes before those inside it
        if not outer or not name.startswith(f"{outer[-1]}."):
            outer.append(name)
    runs = [list(run) for _, run in groupby(outer, lambda name: name.rstrip("0123456789"))]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
