"""Preprocessing as timm and transformers write it down, and back."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitlab.errors import UserError
from vitlab.recipes.preprocessing import Interpolation, Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Pillow's numbers for kernels, which transformers writes; "area" is Pillow's BOX.
KERNELS: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic", 4: "area"}
TOLERANCE = 1e-3


def imagenet(size: tuple[int, int], interpolation: Interpolation) -> Preprocessing:
    """What torchvision, DeiT, DINO and MAE evaluate with: the shorter side to size / 0.875, ImageNet's statistics."""
    return Preprocessing(size, "shorter_side", 0.875, interpolation, IMAGENET_MEAN, IMAGENET_STD)


def from_timm(config: Mapping[str, object], size: tuple[int, int], where: str) -> Preprocessing:
    """Read timm's pretrained_cfg.

    Raises:
        UserError: values of another kind than timm writes.
    """
    squash = config.get("crop_mode") == "squash"
    return _made(
        where,
        size=size,
        resize="square" if squash else "shorter_side",
        crop=config.get("crop_pct", 0.875),
        interpolation=_kernel(config.get("interpolation", "bicubic")),
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
    )


def to_timm(preprocessing: Preprocessing) -> dict[str, object]:
    """The inverse of `from_timm`."""
    return {
        "input_size": [3, *preprocessing.size],
        "interpolation": "box" if preprocessing.interpolation == "area" else preprocessing.interpolation,
        "crop_pct": preprocessing.crop,
        "crop_mode": "squash" if preprocessing.resize == "square" else "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def from_transformers(config: Mapping[str, object], size: tuple[int, int], where: str) -> Preprocessing:
    """Read a preprocessor_config.json.

    Raises:
        UserError: values of another kind than transformers writes.
    """
    resized, cropped = _sides(config.get("size")), _sides(config.get("crop_size"))
    crop = 1.0
    if config.get("do_center_crop") and resized and cropped and 0 < min(cropped) <= min(resized):
        crop = min(cropped) / min(resized)
    shorter = isinstance(config.get("size"), Mapping) and "shortest_edge" in _mapping(config.get("size"))
    normalised = config.get("do_normalize", True)
    return _made(
        where,
        size=size,
        resize="shorter_side" if shorter else "square",
        crop=crop,
        interpolation=KERNELS.get(_number(config.get("resample")), "bilinear"),
        mean=config.get("image_mean", (0.5, 0.5, 0.5)) if normalised else (0.0, 0.0, 0.0),
        std=config.get("image_std", (0.5, 0.5, 0.5)) if normalised else (1.0, 1.0, 1.0),
    )


def to_transformers(preprocessing: Preprocessing) -> dict[str, object]:
    """The inverse of `from_transformers`."""
    height, width = preprocessing.size
    resized = {"height": round(height / preprocessing.crop), "width": round(width / preprocessing.crop)}
    shorter = {"shortest_edge": round(min(height, width) / preprocessing.crop)}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": shorter if preprocessing.resize == "shorter_side" else resized,
        "resample": next(number for number, kernel in KERNELS.items() if kernel == preprocessing.interpolation),
        "do_center_crop": preprocessing.resize == "shorter_side" or preprocessing.crop < 1,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def check_agree(first: Preprocessing, second: Preprocessing, where: str) -> None:
    """Refuse two files that say different statistics of the same weights.

    Raises:
        UserError: they do.
    """
    pairs = zip((*first.mean, *first.std), (*second.mean, *second.std), strict=True)
    if any(abs(one - other) > TOLERANCE for one, other in pairs):
        raise UserError(
            f"{where}: config.json says mean {first.mean} and std {first.std}, preprocessor_config.json {second.mean} "
            f"and {second.std}; correct one of them"
        )


def _made(where: str, **values: Any) -> Preprocessing:
    try:
        made: Preprocessing = TypeAdapter(Preprocessing).validate_python(values)
        return made
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{where}: the preprocessing beside the weights has a wrong {place}: {first['msg']}") from error


def _kernel(name: object) -> object:
    return {"box": "area", "random": "bilinear"}.get(str(name), name)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1


def _sides(value: object) -> tuple[int, ...]:
    """Height and width, or one side, of the ways transformers has written a size."""
    found = list(_mapping(value).values()) if isinstance(value, Mapping) else [value]
    return tuple(side for side in found if isinstance(side, int) and side > 0)
