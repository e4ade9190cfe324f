"""What the inspector page shows of a model: small JSON values, and maps of 16-bit floats.

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
from vitlab.inspection import attention_maps, attention_rollout, position_similarity, token_similarity
from vitlab.inspection.subject import NotApplicable
from vitlab.models.build import Model
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.configs import ViTConfig
from vitlab.runtime import Runtime
from vitlab.serving.limits import Limits, Refused

Maps = NDArray[np.float16]  # what the page computes with, to be sent as it is


class ModelFacts(BaseModel):
    """The model that is served.

    Attributes:
        name: the last part of the path that it was loaded from.
        classes: number of classes.
        height, width: of the input, in pixels.
        rows, columns: of the grid of patches; 0 if there are no patches.
        layers, heads: of the encoder; 0 if there is none.
        class_token: whether a class token precedes the patches.
        attention: why there are no attention maps; empty if there are.
        positions: why there are no position embeddings; empty if there are.
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


class ImageView(BaseModel):
    """An image as the model receives it, and its attention rollout.

    Attributes:
        picture: the image, resized and cropped for the model: a PNG as a data URI.
        rollout: for each patch, row by row, its share of the output; empty if there is no attention.
        rollout_without_residual: the same without residual connections.
    """

    picture: str
    rollout: list[list[float]]
    rollout_without_residual: list[list[float]]


@dataclass(frozen=True, eq=False)
class Inspector:
    """Attention maps and similarities of one model, one image at a time."""

    model: Model
    runtime: Runtime
    limits: Limits

    def facts(self, name: str) -> ModelFacts:
        """What the page needs to know before there is an image."""
        config = self.model.config
        height, width = config.image_hw
        plain = ModelFacts(name=name, classes=config.num_classes, height=height, width=width)
        if not isinstance(config, ViTConfig):
            return plain.model_copy(
                update={"attention": "a ResNet has no attention", "positions": "a ResNet has no position embeddings"}
            )
        rows, columns = config.grid
        attention = "axial attention has no map between all pairs of tokens" if config.axial else ""
        return plain.model_copy(
            update=dict(
                rows=rows, columns=columns, layers=config.layers, heads=config.heads, attention=attention,
                positions="" if self.position_similarity() is not None else "this model has no position embeddings",
                class_token=config.prefix_tokens > 0,
            )
        )  # fmt: skip

    def view(self, image_HWC: RGB) -> ImageView:
        """The prepared image and its attention rollout."""
        rollouts: list[list[list[float]]] = [[], []]
        if isinstance(self.model, VisionTransformer) and not self.model.config.axial:
            inputs_1CHW = self._inputs(image_HWC)
            for place, residual in enumerate((True, False)):
                rollouts[place] = attention_rollout(self.model, inputs_1CHW, residual=residual)[0].cpu().tolist()
        return ImageView(picture=_data_uri(image_HWC), rollout=rollouts[0], rollout_without_residual=rollouts[1])

    def attention(self, image_HWC: RGB, layer: int) -> Maps:
        """The attention of all heads of a layer, (heads, tokens, tokens).

        Raises:
            UserError: a model without such maps, or a layer that does not exist.
            Refused: 413, the maps exceed `limits.response_bytes`.
        """
        config = self.model.config
        if isinstance(config, ViTConfig) and 2 * config.heads * config.tokens**2 > self.limits.response_bytes:
            raise Refused(413, "this model's attention maps are too large to send; serve it at a smaller image size")
        (_, maps_1HNN), *_ = attention_maps(self.model, self._inputs(image_HWC), layers=[layer])
        return _half(maps_1HNN[0])

    def similarity(self, image_HWC: RGB, depth: int) -> Maps:
        """The cosine similarity of the patch tokens after `depth` layers, (patches, patches).

        Raises:
            UserError: not a Vision Transformer, or a depth that does not exist.
        """
        return _half(token_similarity(self.model, self._inputs(image_HWC), depth)[0])

    def position_similarity(self) -> Maps | None:
        """The cosine similarity of the position embeddings, (patches, patches); None if there are none."""
        try:
            similarity_rcrc = position_similarity(self.model)
        except NotApplicable:
            return None
        patches = similarity_rcrc.shape[0] * similarity_rcrc.shape[1]
        return _half(similarity_rcrc.reshape(patches, patches))

    def _inputs(self, image_HWC: RGB) -> Tensor:
        return loader.normalise(torch.from_numpy(image_HWC)[None], self.model.preprocessing, self.runtime.device)


def _half(values: Tensor) -> Maps:
    maps: Maps = values.half().cpu().numpy()
    return maps


def _data_uri(image_HWC: RGB) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def top_predictions(probabilities_K: NDArray[np.float32], names: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """The `top` most probable classes, most probable first; ties by class number."""
    best = np.argsort(-probabilities_K, kind="stable")[:top].tolist()
    return [{"index": k, "label": names[k], "probability": float(probabilities_K[k])} for k in best]
