"""How a run is carried out: on how much hardware, how exactly, and what it keeps."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


class ScaleConfig(BaseModel):
    """How a run is carried out.

    Attributes:
        accumulation: parts that a batch is cut into, one after the other, to save memory; "auto" takes the fewest
            that fit.
        lanes: shares of a batch that one process learns from side by side, each on its own cores; "auto" takes
            several on a processor, for a small ViT without dropout, and 1 elsewhere.
        parallel: what several processes do: "ddp" has the whole model in each, "fsdp" cuts weights, gradients and
            optimizer among them; "auto" is ddp where everything fits into half of a device's memory, else fsdp;
            "none" refuses more than one process.
        compile: "blocks" compiles every encoder block, "step" the whole forward pass.
        recompute: keep only the blocks' inputs and compute the rest again in the backward pass: a third more
            arithmetic for much less memory.
        precision: of matrix products; "auto" is bfloat16 on GPUs and float32 elsewhere; weights and optimizer are
            always float32. "fp8" needs torchao and a GPU that has it.
        keep: how many of the newest checkpoints are kept; the best one is kept too, where `validation` says which.
        validation: share of the training images held out to measure on; 0 holds out none.
        patience: evaluations without a better one, after which training ends and the best weights are kept; 0 never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    accumulation: Positive | Literal["auto"] = 1
    lanes: Positive | Literal["auto"] = "auto"
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    compile: Literal["none", "blocks", "step"] = "none"
    recompute: bool = False
    precision: Literal["auto", "float32", "bfloat16", "fp8"] = "auto"
    keep: Positive = 2
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patience: Annotated[int, Field(ge=0)] = 0


# Keys of `scale` that a resumed run may change: they change rounding at most.
ELASTIC = frozenset({"accumulation", "lanes", "parallel", "compile", "recompute", "keep"})
