"""What one format's reader decides: the model, and where each of its arrays comes from."""

from collections.abc import Callable, Iterable, Mapping
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
class Part:
    """One array of the model: the names of the arrays it is made of, and how.

    `make` works on tensors of the "meta" device too: so shapes are compared before a byte is read.
    """

    names: tuple[str, ...]
    make: Callable[..., torch.Tensor] = as_is

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape that `make` gives, from the declared shapes alone.

        Raises:
            RuntimeError, IndexError: the declared shapes do not fit together.
        """
        return tuple(self.make(*(torch.empty(shapes[name], device="meta") for name in self.names)).shape)

    def tensor(self, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The array itself."""
        return self.make(*(read(name) for name in self.names))


@dataclass(frozen=True)
class Plan:
    """How a file becomes a model.

    Attributes:
        format: what the file was recognised as, for messages.
        config: the model its arrays fit.
        parts: by the model's own names.
        dropped: arrays of the file that are known and not needed -> why, such as a decoder's.
        preprocessing: that travels with the weights.
        classes: names of the classes, None where unknown.
    """

    format: str
    config: ModelConfig
    parts: Mapping[str, Part]
    preprocessing: Preprocessing
    dropped: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Settings:
    """What lies beside the arrays.

    Attributes:
        where: the source, for messages.
        config: the parsed config.json, empty where there is none.
        preprocessor: the parsed preprocessor_config.json, empty where there is none.
        image_size: what the caller asked for; it also tells the grid where the arrays cannot.
    """

    where: str
    config: Mapping[str, object] = field(default_factory=dict)
    preprocessor: Mapping[str, object] = field(default_factory=dict)
    image_size: Size | None = None


def copies(names: Iterable[str]) -> dict[str, Part]:
    """Parts that take arrays over under their own names."""
    return {name: Part((name,)) for name in names}
