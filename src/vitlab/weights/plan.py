"""What a format decides before anything is read: the model, and what each of its arrays is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from vitlab.recipes.configs import ModelConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights.readers.tensors import Shape

Size = int | tuple[int, int]


def as_is(tensor: torch.Tensor) -> torch.Tensor:
    """The array unchanged."""
    return tensor


@dataclass(frozen=True)
class ArraySource:
    """What one array of the model is made of: the names of the file's arrays, and how they are combined.

    `make` works on tensors of the "meta" device too, so that shapes are compared before a byte is read.
    """

    names: tuple[str, ...]
    make: Callable[..., torch.Tensor] = as_is

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape that `make` gives, from the declared shapes alone.

        Raises:
            RuntimeError, IndexError: the declared shapes do not fit together.
        """
        if self.make is as_is:
            return shapes[self.names[0]]
        return tuple(self.make(*(torch.empty(shapes[name], device="meta") for name in self.names)).shape)

    def tensor(self, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The array itself."""
        return self.make(*(read(name) for name in self.names))


@dataclass(frozen=True)
class LoadPlan:
    """How a file becomes a model.

    Attributes:
        format: what the file was recognised as, for messages.
        config: the model its arrays fit.
        sources: what each array of the model is made of, by the model's own names.
        preprocessing: that travels with the weights.
        dropped: arrays of the file that are known and not needed -> why, such as a decoder's.
        classes: names of the classes, None where unknown.
    """

    format: str
    config: ModelConfig
    sources: Mapping[str, ArraySource]
    preprocessing: Preprocessing
    dropped: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SourceSettings:
    """What lies beside the arrays.

    Attributes:
        where: the source, for messages.
        config: the parsed config.json, empty where there is none.
        preprocessor: the parsed preprocessor_config.json, empty where there is none.
        image_size: what the caller asked for; it also settles the grid where the arrays cannot.
    """

    where: str
    config: Mapping[str, object] = field(default_factory=dict)
    preprocessor: Mapping[str, object] = field(default_factory=dict)
    image_size: Size | None = None
