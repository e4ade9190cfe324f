"""What the inspector page shows of a model: small JSON values, and maps as 16-bit floats.

Shapes: H heads, N tokens (class token included), P patches, r c rows and columns of patches.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from vitlab.data import loader
from vitlab.data.images import RGB
from vitlab.errors import UserError
from vitlab.inspection import attention_maps, attention_rollout, position_similarity, token_similarity
from vitlab.inspection.subject import NotApplicable
from vitlab.models.build import Model
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.configs import ViTConfig
from vitlab.runtime import Runtime
from vitlab.serving.limits import Limits, Refused


class ModelFacts(BaseModel):
    """What kind of model is served; lengths are of the input in pixels, and of the grid of patches.

    Attributes:
        name: the last part of where it was loaded from.
        classes: how many it tells apart.
        height, width: of its input.
        rows, columns: of its patches; 0 where it has none.
        layers, heads: of its encoder; 0 where it has none.
        class_token: whether a class token stands before the patches.
        attention: why there are no attention maps; empty where there are.
        positions: why there are no position embeddings; empty where there are.
    """

    name: str
    classes: int
    height: int
    width: int
    rows: int = 0
    columns: int = 0
    layers: int = 0
    heads: int = 0
    class_token: bool = False
    attention: str = ""
    positions: str = ""


class Look(BaseModel):
    """What the whole model makes of an image.

    Attributes:
        picture: what the model sees, resized and cut: a PNG as a data URI.
        rollout: for each patch, row by row, its share of the output; empty where there is no attention.
        rollout_without_residual: the same, residual connections not counted.
    """

    picture: str
    rollout: list[list[float]]
    rollout_without_residual: list[list[float]]


@dataclass(frozen=True, eq=False)
class Maps:
    """Numbers for the page: an array of 16-bit floats, little-endian."""

    values: NDArray[np.float16]

    def data(self) -> bytes:
        """The bytes, in C order."""
        return self.values.astype("<f2").tobytes()

    def shape(self) -> str:
        """Such as "12,197,197"."""
        return ",".join(map(str, self.values.shape))


@dataclass(frozen=True, eq=False)
class Looking:
    """Looks inside one model, an image at a time."""

    model: Model
    runtime: Runtime
    limits: Limits

    def facts(self, name: str) -> ModelFacts:
        """What the page must know before there is an image."""
        config = self.model.config
        height, width = config.image_hw
        plain = ModelFacts(name=name, classes=config.num_classes, height=height, width=width)
        if not isinstance(config, ViTConfig):
            none = "a ResNet has none"
            return plain.model_copy(update={"attention": none, "positions": none})
        rows, columns = config.grid
        attention = "axial attention has no map from every token to every token" if config.axial else ""
        return plain.model_copy(
            update=dict(
                rows=rows, columns=columns, layers=config.layers, heads=config.heads, attention=attention,
                positions="" if self.position_similarity() is not None else "this model has no position embeddings",
                class_token=config.prefix_tokens > 0,
            )
        )  # fmt: skip

    def look(self, image_HWC: RGB) -> Look:
        """The prepared image and its attention rollout."""
        rollouts: list[list[list[float]]] = [[], []]
        if isinstance(self.model, VisionTransformer) and not self.model.config.axial:
            inputs_1CHW = self._inputs(image_HWC)
            for place, residual in enumerate((True, False)):
                rollouts[place] = attention_rollout(self.model, inputs_1CHW, residual=residual)[0].cpu().tolist()
        return Look(picture=_data_uri(image_HWC), rollout=rollouts[0], rollout_without_residual=rollouts[1])

    def attention(self, image_HWC: RGB, layer: int) -> Maps:
        """The attention of all heads of a layer, (heads, tokens, tokens).

        Raises:
            UserError: a model without such maps, or a layer that does not exist.
            Refused: 413, the maps are larger than is sent.
        """
        config = self.model.config
        if isinstance(config, ViTConfig) and 2 * config.heads * config.tokens**2 > self.limits.answer_bytes:
            raise Refused(413, "this model's attention maps are too large to send; load it at a smaller image size")
        (_, maps_1HNN), *_ = attention_maps(self.model, self._inputs(image_HWC), layers=[layer])
        return _half(maps_1HNN[0])

    def similarity(self, image_HWC: RGB, depth: int) -> Maps:
        """The likeness of the tokens after some layers, (patches, patches).

        Raises:
            UserError: not a Vision Transformer, or a depth that does not exist.
        """
        return _half(token_similarity(self.model, self._inputs(image_HWC), depth)[0])

    def position_similarity(self) -> Maps | None:
        """The likeness of the position embeddings, (patches, patches); None where the model has none."""
        try:
            similarity_rcrc = position_similarity(self.model)
        except NotApplicable:
            return None
        patches = similarity_rcrc.shape[0] * similarity_rcrc.shape[1]
        return _half(similarity_rcrc.reshape(patches, patches))

    def _inputs(self, image_HWC: RGB) -> Tensor:
        return loader.normalise(torch.from_numpy(image_HWC)[None], self.model.preprocessing, self.runtime.device)


def _half(values: Tensor) -> Maps:
    return Maps(values.half().cpu().numpy())


def _data_uri(image_HWC: RGB) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def best_of(probabilities_K: NDArray[np.float32], names: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """The most probable classes, most probable first; equal ones by number.

    Raises:
        UserError: more are asked for than there are.
    """
    if not 1 <= top <= len(names):
        raise UserError(f"top={top}: the model has {len(names)} classes; give 1 to {len(names)}")
    best = np.argsort(-probabilities_K, kind="stable")[:top].tolist()
    return [{"index": k, "label": names[k], "probability": float(probabilities_K[k])} for k in best]
