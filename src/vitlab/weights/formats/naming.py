"""Finding a model among the names of a file, and refusing by name the parts that vitlab's models do not have."""

from collections.abc import Iterable

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import listed

# What makes the outputs of a file's model different from those of the paper's, by a part of the names.
FOREIGN = {
    "fc_norm.": "averages the patch tokens before its last norm",
    "dist_token": "has a distillation token (DeiT's distilled models)",
    "distillation_token": "has a distillation token (DeiT's distilled models)",
    "reg_token": "has register tokens",
    "register_tokens": "has register tokens",
    "attn_pool.": "pools by attention",
    "MAPHead_0": "pools by attention (MAP)",
    "q_norm.": "normalises its queries and keys",
    "norm_pre.": "normalises before its first block",
    "relative_position_bias": "has relative position biases",
    "mlp.w12.": "has gated MLPs (SwiGLU)",
    "mlp.weights_in.": "has gated MLPs (SwiGLU)",
    "mlp.fc1_g.": "has gated MLPs (SwiGLU)",
    "qkv_bias_separate": "has attention without key biases",
    "attn.q_bias": "has attention without key biases",
}


def check_native_parts(names: Iterable[str], where: str) -> None:
    """Refuse a model with parts that the paper's models do not have.

    Raises:
        UserError: says which.
    """
    every = list(names)
    for part, what in FOREIGN.items():
        found = [name for name in every if part in name]
        if found:
            raise UserError(f"{where}: this model {what} ({listed(found, 2)}), which vitlab's models do not have")


def prefix_before(names: Iterable[str], landmark: str, where: str) -> str | None:
    """What stands before `landmark` in the one name that ends with it; None where no name does.

    A self-distilled checkpoint holds two models; the teacher is the one to use (DINO).

    Raises:
        UserError: several models.
    """
    found = [name.removesuffix(landmark) for name in names if name.endswith(landmark)]
    found = [prefix for prefix in found if prefix == "" or prefix.endswith((".", "/"))]
    teachers = [prefix for prefix in found if prefix.startswith("teacher.")]
    if len(found) > 1 and len(teachers) != 1:
        raise UserError(f"{where}: holds {len(found)} models, under {listed(found)}; save the one to load alone")
    return next(iter(teachers or found), None)
